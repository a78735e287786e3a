"""Text tables: a line of column names, then a line for each example."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.arrays import Array, ArrayExamples, Inputs
from hessdiag.loading.datasets.damage import damage_told
from hessdiag.loading.datasets.room import check_room
from hessdiag.loading.datasets.tables import Columns, choose_columns, class_numbers, refuse_words
from hessdiag.spec.data import CsvData

__all__ = ["read"]

_ROWS = 10_000  # of text at a time
_TARGET = 128  # bytes of a target as text, and of its line's number
_LONGEST_LINE = 16 * 2**20  # characters; without an end a file would be one line
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_TOO_LARGE = "write the table as parquet, which is read piecewise (pandas: read_csv(...).to_parquet(...))"


def read(spec: CsvData, resolve: Callable[[str], Path]) -> ArrayExamples:
    """The columns that the spec names, as examples: features in float64, in which they are as written.

    Raises:
        DataError: no table, a cell that is no number, or more than the memory holds.
        UsageError: a column that the spec names is not there, or words without classes.
    """
    with damage_told(f"data.path: {spec.path} cannot be read", "see that it is a readable text file"):
        try:
            with resolve(spec.path).open(encoding="utf-8-sig", newline="") as file:
                return _read(spec, _Table(file, spec))
        except UnicodeDecodeError as error:
            raise DataError(
                f"data.path: {spec.path} is not UTF-8 text (found the byte 0x{error.object[error.start]:02x}): save it "
                "as UTF-8, or name another data.format"
            ) from None


class _Table:
    """Reads rows and says where a fault lies."""

    def __init__(self, file: TextIO, spec: CsvData) -> None:
        self.shown = spec.path
        self._reader = csv.reader(_lines(file, spec.path), delimiter=spec.delimiter, strict=True)
        names = next(self._parsed(), None)
        if names is None:
            raise DataError(f"data.path: {spec.path} is empty, expected a line of column names, then one per example")
        self.names = [name.strip() for name in names]

    def fault(self, line: int, found: str) -> DataError:
        """A complaint about one line."""
        return DataError(f"data.path: {self.shown}:{line}: found {found}")

    def rows(self) -> Iterator[tuple[list[int], list[tuple[str, ...]]]]:
        """All rows but for empty lines, so many at a time: the line on which each ends, and the cells by column."""
        parsed, width = self._parsed(), len(self.names)
        while True:
            rows: list[list[str]] = []
            lines: list[int] = []
            for row in islice(parsed, _ROWS):
                if len(row) != width:
                    found = f"{len(row)} cell{'s' if len(row) > 1 else ''}"
                    raise self.fault(self._reader.line_num, f"{found}, expected {width}, one for each column")
                rows.append(row)
                lines.append(self._reader.line_num)
            if not rows:
                return
            yield lines, list(zip(*rows, strict=True))

    def _parsed(self) -> Iterator[list[str]]:
        try:
            yield from filter(None, self._reader)
        except csv.Error as error:
            raise self.fault(
                self._reader.line_num, f"no row of a table ({error}): see to its quotes and data.delimiter"
            ) from None


def _lines(file: TextIO, shown: str) -> Iterator[str]:
    for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), ""), 1):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"data.path: {shown}:{number}: found a line of {_LONGEST_LINE} characters or more")
        yield line


def _read(spec: CsvData, table: _Table) -> ArrayExamples:
    columns = choose_columns(spec, table.names, _hint(table.names))
    places = [table.names.index(name) for name in columns.features]
    target = None if columns.target is None else table.names.index(columns.target)
    blocks: list[np.ndarray] = []
    words: list[str] = []
    lines: list[int] = []
    nbytes = 0
    for ends, cells in table.rows():
        blocks.append(_numbers([cells[place] for place in places], columns.features, ends, table))
        nbytes += blocks[-1].nbytes
        if target is not None:
            words += cells[target]
            lines += ends
            nbytes += _TARGET * len(ends)
        check_room(nbytes, f"data.path: {spec.path} up to line {ends[-1]}", _TOO_LARGE)  # for the copy below
    features = np.concatenate(blocks) if blocks else np.empty((0, len(places)))
    return ArrayExamples(_arranged(columns, features), None if target is None else _targets(words, lines, spec, table))


def _hint(names: Sequence[str]) -> str:
    """What a table of one column suggests."""
    other = next((mark for mark in ";\t|," if mark in names[0]), None) if len(names) == 1 else None
    return "" if other is None else f": is data.delimiter {other!r}?"


def _arranged(columns: Columns, features: np.ndarray) -> Inputs:
    if None in columns.inputs:
        return features
    place = {name: number for number, name in enumerate(columns.features)}
    parts: dict[str | None, Array] = {
        argument: features[:, [place[name] for name in names]] for argument, names in columns.inputs.items()
    }
    return columns.arranged(parts)


def _numbers(cells: Sequence[tuple[str, ...]], names: Sequence[str], lines: Sequence[int], table: _Table) -> np.ndarray:
    """The cells of some columns as (rows, columns), in float64.

    Raises:
        DataError: one of them is no finite number.
    """
    try:
        block = np.array(cells, np.float64).T
    except ValueError:
        block = np.array(np.nan)
    # Python's numbers may have underscores and other alphabets' digits; a table's may not.
    text = "".join(map("".join, cells))
    if not np.isfinite(block).all() or "_" in text or not text.isascii():
        for row, line in enumerate(lines):
            for column, name in zip(cells, names, strict=True):
                if not _NUMBER.fullmatch(column[row]) or not math.isfinite(float(column[row])):
                    raise table.fault(line, f"{_shown(column[row])} in column {name!r}, expected a number")
    return np.ascontiguousarray(block)


def _targets(cells: list[str], lines: list[int], spec: CsvData, table: _Table) -> np.ndarray:
    """Whole numbers, other numbers, or the numbers of words: (N,).

    Raises:
        DataError: numbers, but for a few cells.
        UsageError: words, and no classes for them.
    """
    assert spec.targets is not None
    if spec.classes is not None:
        return _classes(list(map(str.strip, cells)), lines, spec, table)
    words: set[str] = set() if any(map(_NUMBER.fullmatch, cells)) else set(filter(None, map(str.strip, cells)))
    if words:
        raise refuse_words(words, spec.targets, spec.path)
    numbers = _numbers([tuple(cells)], [spec.targets], lines, table)[:, 0]
    try:
        return np.array(list(map(int, cells)), np.int64)
    except (ValueError, OverflowError):
        return numbers


def _classes(words: list[str], lines: list[int], spec: CsvData, table: _Table) -> np.ndarray:
    assert spec.classes is not None
    numbers, unknown = class_numbers(words, spec.classes)
    if unknown is not None:
        line = lines[words.index(unknown)]
        raise UsageError(
            f"{spec.path}:{line}: found {_shown(unknown)} in column {spec.targets!r}, expected one of "
            f"{', '.join(spec.classes)}",
            "data.classes",
        )
    return np.array([numbers[word] for word in words], np.int64)


def _shown(cell: str) -> str:
    return repr(cell[:40]) if cell.strip() else "an empty cell"
