"""Columns of an Arrow table as NumPy arrays: numbers, lists of numbers, and words by their class numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.checkpoints.words import printable
from hessdiag.loading.datasets.tables import Columns
from hessdiag.loading.extras import import_extra
from hessdiag.spec.data import ParquetData

__all__ = ["Place", "check_types", "feature", "holds_words", "target"]


@dataclass(frozen=True)
class Place:
    """Where some rows lie: in which file, and after how many others."""

    shown: str
    before: int

    def __call__(self, column: str, row: int) -> str:
        """The words for one row among them."""
        return f"in column {column!r}, row {self.before + row + 1} of {self.shown}"


def _arrow(module: str = "pyarrow") -> Any:
    return import_extra(module, "data.format: parquet")


def _is_number(kind: Any) -> bool:
    types = _arrow("pyarrow.types")
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_list(kind: Any) -> bool:
    types = _arrow("pyarrow.types")
    return bool(types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind))


def _plain(kind: Any) -> Any:
    """The type of the values, where a column holds their numbers in a dictionary."""
    return kind.value_type if _arrow("pyarrow.types").is_dictionary(kind) else kind


def holds_words(kind: Any) -> bool:
    """Whether a column of this type needs ``classes``."""
    types, kind = _arrow("pyarrow.types"), _plain(kind)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def check_types(schema: Any, columns: Columns, spec: ParquetData) -> None:
    """Refuse columns that are neither numbers nor, for inputs, lists of numbers, nor, for targets, words.

    Raises:
        UsageError: at the key that names the column.
    """
    for name in columns.features:
        kind = _plain(schema.field(name).type)
        if not _is_number(kind) and not (_is_list(kind) and _is_number(kind.value_type)):
            raise UsageError(
                f"{_missing(spec)}column {name!r} of {spec.path} is {printable(str(kind))}, expected "
                "numbers, or lists of numbers, all of one length: name other columns, or cast it before it is written",
                "data.inputs",
            )
    kind = None if columns.target is None else _plain(schema.field(columns.target).type)
    if kind is not None and not _is_number(kind) and not holds_words(kind):
        raise UsageError(
            f"column {columns.target!r} of {spec.path} is {printable(str(kind))}, expected numbers or "
            "words: name another column, or cast it before it is written",
            "data.targets",
        )


def _missing(spec: ParquetData) -> str:
    return "missing, and " if spec.inputs is None else ""


def feature(column: Any, name: str, place: Place) -> np.ndarray:
    """A column as (rows), or one of lists as (rows, width).

    Raises:
        DataError: a value is missing or not finite, or lists of several lengths.
    """
    column = _without_dictionary(column)
    _refuse_nulls(column, name, place)
    if not _is_list(column.type):
        return _finite(column.to_numpy(), name, place)
    compute = _arrow("pyarrow.compute")
    lengths = compute.list_value_length(column).unique().to_pylist()
    if len(lengths) > 1:
        raise DataError(
            f"data.path: found lists of {min(lengths)} to {max(lengths)} numbers in column {name!r} of {place.shown}, "
            "expected one length: pad them"
        )
    values = compute.list_flatten(column)
    width = lengths[0] if lengths else 0
    _refuse_nulls(values, name, place, width)
    return _finite(values.to_numpy().reshape(-1, width), name, place)


def target(column: Any, spec: ParquetData, place: Place) -> np.ndarray:
    """The targets (rows): whole numbers and bools as int64, others as they are, words by their class numbers.

    Raises:
        DataError: a value is missing or not finite.
        UsageError: a word is none of the classes.
    """
    column, name = _without_dictionary(column), str(spec.targets)
    _refuse_nulls(column, name, place)
    if spec.classes is not None:
        return _numbered(column, spec.classes, name, place)
    array = _finite(column.to_numpy(), name, place)
    if array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
        raise DataError(f"data.path: found {array.max()} {place(name, int(array.argmax()))}, expected less than 2^63")
    return array if array.dtype.kind == "f" else array.astype(np.int64)


def _numbered(column: Any, classes: tuple[str, ...], name: str, place: Place) -> np.ndarray:
    arrow, compute = _arrow(), _arrow("pyarrow.compute")
    words = column.cast(arrow.string())
    numbers = compute.index_in(words, value_set=arrow.array(classes, arrow.string()))
    if numbers.null_count:
        row = _first(compute.is_null(numbers).to_numpy())
        raise UsageError(
            f"found {str(words[row].as_py())[:40]!r} {place(name, row)}, expected one of {', '.join(classes)}",
            "data.classes",
        )
    array: np.ndarray = numbers.to_numpy().astype(np.int64)
    return array


def _without_dictionary(column: Any) -> Any:
    kind = _plain(column.type)
    return column if kind == column.type else column.cast(kind)


def _refuse_nulls(column: Any, name: str, place: Place, width: int = 1) -> None:
    if column.null_count:
        row = _first(_arrow("pyarrow.compute").is_null(column).to_numpy()) // width
        raise DataError(
            f"data.path: found no value (null) {place(name, row)}, expected one in every row: fill or drop it before "
            "the table is written"
        )


def _finite(array: np.ndarray, name: str, place: Place) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = _first(~np.isfinite(array).reshape(len(array), -1).all(1))
        raise DataError(f"data.path: found {array[row]} {place(name, row)}, expected a finite number")
    return array


def _first(mask: np.ndarray) -> int:
    return int(np.argmax(mask))
