"""Parquet, read by row groups: of a table larger than memory, one group of rows is there at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hessdiag.errors import DataError
from hessdiag.loading.datasets.arrays import as_tensor
from hessdiag.loading.datasets.damage import damage_told
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.parquet_columns import Place, check_types, feature, holds_words, target
from hessdiag.loading.datasets.room import check_room
from hessdiag.loading.datasets.tables import Columns, choose_columns, refuse_words
from hessdiag.loading.extras import import_extra
from hessdiag.spec.data import ParquetData

__all__ = ["ParquetExamples", "read"]

_MOST_WORDS = 20


def read(spec: ParquetData, resolve: Callable[[str], Path]) -> ParquetExamples:
    """The columns that the spec names, of one file or of a folder's files in the order of their names.

    Raises:
        DataError: damaged, or files that do not go together.
        UsageError: a column that the spec names is not there or not of numbers, or words without classes.
        MissingExtraError: pyarrow is not installed.
    """
    path = resolve(spec.path)
    files = _files_in(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"data.path: {spec.path} holds no .parquet files, expected at least one")
    return ParquetExamples(spec, [_File(file, _shown(spec, file, path)) for file in files])


def _files_in(folder: Path) -> list[Path]:
    """By name; "._a.parquet" is a Mac's, and no table."""
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def _shown(spec: ParquetData, file: Path, path: Path) -> str:
    return spec.path if file == path else f"{spec.path.rstrip('/')}/{file.name}"


class _File:
    """One file: its schema, and the number of rows of each of its groups."""

    def __init__(self, path: Path, shown: str) -> None:
        self.path, self.shown = path, shown
        opened = self.opened()
        with self.guarded():
            self.schema: Any = opened.schema_arrow
            groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
            self.lengths = [int(group.num_rows) for group in groups]
        if min(self.lengths, default=0) < 0:
            raise DataError(f"data.path: {shown} declares a group of {min(self.lengths)} rows: it is damaged")

    def opened(self) -> Any:
        """As pyarrow opens it."""
        parquet = import_extra("pyarrow.parquet", "data.format: parquet")
        with self.guarded():
            return parquet.ParquetFile(self.path)

    def guarded(self) -> AbstractContextManager[None]:
        """Where pyarrow may find the file damaged."""
        return damage_told(f"data.path: {self.shown} is not a readable parquet file")

    def place(self, group: int) -> Place:
        """Where a group of its rows begins."""
        return Place(self.shown, sum(self.lengths[:group]))


@dataclass(frozen=True)
class _Group:
    """A group of rows in memory: for each argument (rows, F), and the targets (rows)."""

    inputs: dict[str | None, np.ndarray]
    targets: np.ndarray | None


class ParquetExamples:
    """Examples of parquet files. Of all groups the last one used stays in memory.

    Args:
        spec: names the columns.
        files: in their order.

    Raises:
        DataError: files with other columns than the first.
        UsageError: see :func:`read`.
    """

    def __init__(self, spec: ParquetData, files: Sequence[_File]) -> None:
        first = files[0]
        self._spec = spec
        self._columns: Columns = choose_columns(spec, first.schema.names)
        check_types(first.schema, self._columns, spec)
        self._needed = [*dict.fromkeys([*self._columns.features, *filter(None, [spec.targets])])]
        for file in files[1:]:
            _check_same(first, file, self._needed)
        self._groups = [(file, number) for file in files for number in range(len(file.lengths))]
        lengths = [length for file in files for length in file.lengths]
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._open: tuple[_File, Any] | None = None
        self._held: tuple[int, _Group] | None = None
        if spec.targets is not None and spec.classes is None and holds_words(first.schema.field(spec.targets).type):
            raise refuse_words(self._words(spec.targets), spec.targets, spec.path)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, rows: Rows) -> tuple[Any, Any]:
        """The rows as (inputs, targets); the groups that hold none of them are not read."""
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        parts = [self._part(int(owner), rows[owners == owner]) for owner in np.unique(owners)]
        inputs = {
            argument: as_tensor(np.concatenate([part.inputs[argument] for part in parts]))
            for argument in self._columns.inputs
        }
        targets = [part.targets for part in parts if part.targets is not None]
        return self._columns.arranged(inputs), as_tensor(np.concatenate(targets)) if targets else None

    def _part(self, owner: int, rows: Rows) -> _Group:
        """Some rows of one group, copied: a view of them would keep the whole group in memory."""
        if self._held is None or self._held[0] != owner:
            self._held = None  # room for the next one
            self._held = owner, self._decoded(owner)
        group, chosen = self._held[1], rows - self._starts[owner]
        return _Group(
            {argument: array[chosen] for argument, array in group.inputs.items()},
            None if group.targets is None else group.targets[chosen],
        )

    def _decoded(self, owner: int) -> _Group:
        file, number = self._groups[owner]
        table, place = self._table(file, number, self._needed), file.place(number)
        with file.guarded():
            features = {name: feature(table.column(name), name, place) for name in self._columns.features}
            inputs = {
                argument: _side_by_side([features[name] for name in names])
                for argument, names in self._columns.inputs.items()
            }
            named = self._columns.target
            return _Group(inputs, None if named is None else target(table.column(named), self._spec, place))

    def _table(self, file: _File, number: int, names: list[str]) -> Any:
        """Some columns of one row group.

        Raises:
            DataError: damaged, or larger than the memory.
        """
        if self._open is None or self._open[0] is not file:
            self._open = file, file.opened()
        reader = self._open[1]
        check_room(
            _decoded_bytes(reader, number, names),
            f"data.path: row group {number} of {file.shown}",
            "write the file with smaller row groups (pandas: to_parquet(..., row_group_size=100000))",
        )
        with file.guarded():
            table = reader.read_row_group(number, columns=names)
        if table.num_rows != file.lengths[number]:
            raise DataError(
                f"data.path: row group {number} of {file.shown} declares {file.lengths[number]} rows, but holds "
                f"{table.num_rows}: it is damaged, copy it again"
            )
        return table

    def _words(self, column: str) -> set[str]:
        """The first few words of the target column."""
        words: set[str] = set()
        for file, number in self._groups:
            table = self._table(file, number, [column])
            with file.guarded():
                words |= {str(word) for word in table.column(column).unique().to_pylist() if word is not None}
            if len(words) > _MOST_WORDS:
                break
        return words


def _decoded_bytes(reader: Any, number: int, names: list[str]) -> int:
    """What a row group takes in memory while it is turned into arrays: pyarrow's table, and NumPy's."""
    group = reader.metadata.row_group(number)
    parts = [group.column(place) for place in range(group.num_columns)]
    chosen = [part for part in parts if any(part.path_in_schema.split(".")[0] == name.split(".")[0] for name in names)]
    return sum(max(part.total_uncompressed_size, 0) + 16 * max(part.num_values, 0) for part in chosen)


def _side_by_side(arrays: list[np.ndarray]) -> np.ndarray:
    """Columns (rows) and lists (rows, width) as one array (rows, F), in float32 where that holds all of them."""
    dtype = np.result_type(np.float32, *(array.dtype for array in arrays))
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1, dtype=dtype)


def _check_same(first: _File, file: _File, names: list[str]) -> None:
    for name in names:
        expected = first.schema.field(name).type
        found = file.schema.field(name).type if name in file.schema.names else "no such column"
        if found != expected:
            raise DataError(
                f"data.path: column {name!r} of {file.shown} is {found}, but of {first.shown} {expected}: expected the "
                "same in every file"
            )
