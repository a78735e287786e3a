"""Tables: the names of their columns, and the first rows, which tell what they hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from hessdiag.errors import DataError
from hessdiag.loading.extras import import_extra
from hessdiag.memory import out_of_memory
from hessdiag.workflows.starter.columns import ROWS, Columns, begin_of, classes, kind_of, words_for
from hessdiag.workflows.starter.guess import DataGuess, choice, described, pick, place
from hessdiag.workflows.starter.text import FILL_IN, Line, flow

__all__ = ["guess_csv", "guess_parquet"]

_NUMBERING = ("", "id", "idx", "index", "unnamed: 0", "__index_level_0__")  # of the rows, which a model is not fed


def guess_csv(path: Path, shown: str) -> DataGuess:
    """A text table."""
    text = begin_of(path)
    try:
        delimiter = csv.Sniffer().sniff(text[:2_000], ",;\t|").delimiter
    except csv.Error:  # a single column, say
        delimiter = ","
    try:
        rows = list(islice(filter(None, csv.reader(io.StringIO(text), delimiter=delimiter)), ROWS + 1))
    except csv.Error as error:
        raise DataError(f"{shown}: cannot be read as a table ({error}); expected a line of column names") from None
    if not rows:
        raise DataError(f"{shown}: found no rows; expected a line of column names, then one for each example")
    header = [name.strip() for name in rows[0]]
    columns = {name: [row[index] for row in rows[1:] if index < len(row)] for index, name in enumerate(header)}
    return _table("csv", shown, columns, [] if delimiter == "," else [Line(f"delimiter: {flow(delimiter)}")])


def guess_parquet(path: Path, shown: str) -> DataGuess:
    """A parquet file, or a folder of them."""
    parquet = import_extra("pyarrow.parquet", "data.format: parquet")
    file = path if path.is_file() else min(path.glob("*.parquet"))
    try:
        with parquet.ParquetFile(file) as table:
            batch = next(table.iter_batches(ROWS), None)
            columns = {name: [] for name in table.schema_arrow.names} if batch is None else batch.to_pydict()
    except Exception as error:  # whatever a damaged file makes it stumble over
        if out_of_memory(error):
            raise
        raise DataError(f"{shown}: cannot be read as parquet ({error}): copy or save it again") from None
    return _table("parquet", shown, columns)


def _is_feature(name: str, columns: Columns) -> bool:
    return name.lower() not in _NUMBERING and kind_of(columns[name]) in ("integers", "floats")


def _table(form: str, shown: str, columns: Columns, extra: Sequence[Line] = ()) -> DataGuess:
    names = list(columns)
    _, targets = pick(names)
    if targets is None and len(names) > 1:
        targets = names[-1]
    features = [name for name in names if name != targets and _is_feature(name, columns)]
    others = [name for name in names if name != targets and name not in features]
    if not features:
        inputs = Line("inputs: []", f"{FILL_IN}: the columns of features; none of numbers was found")
    elif others:
        inputs = choice("inputs", features, names)
    else:
        inputs = Line(f"# inputs: {flow(features[:8])}", "omitted: all columns but the targets, side by side")
    found = columns[targets] if targets is not None else ()
    lines = [
        *described({name: words_for(values) for name, values in columns.items()}),
        *place(form, shown),
        *extra,
        inputs,
        choice("targets", targets, names),
        *classes(found),
    ]
    return DataGuess(lines, kind_of(found) if targets is not None else None)
