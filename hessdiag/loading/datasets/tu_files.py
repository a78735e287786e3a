"""TUDataset's text files: found, read as numbers, and held against one another. Faults are told by file and line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.room import check_room

__all__ = ["TUFiles", "Table", "find_files"]

_PLACES = ("", "raw", "*", "*/raw")  # in the folder itself, or as archives and PyTorch Geometric lay them out
_MOST_SHOWN = 8
_MOST_TEXT = 40
_GROWTH = 8  # bytes in memory for each byte of text: "1\n" becomes an int64, and is sorted


@dataclass(frozen=True)
class Table:
    """The numbers of one file, a row for each line: ``values`` (lines, columns)."""

    path: Path
    shown: str
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def fault(self, row: int, found: str, expected: str) -> DataError:
        """A complaint about one row, with its line in the file."""
        with self.path.open(encoding="ascii", errors="replace") as lines:
            filled = (number for number, line in enumerate(lines, 1) if line.strip())
            number = next((number for place, number in enumerate(filled) if place == row), row + 1)
        return DataError(f"{self.shown}:{number}: found {found}, expected {expected}")


def find_files(folder: Path, name: str | None, shown: str) -> TUFiles:
    """The files of one data set in a folder, or a little below it.

    Args:
        folder: where to look.
        name: of the data set; None: there must be one alone.
        shown: the folder, as messages show it.

    Raises:
        UsageError: there are none, none of that name, or several data sets.
    """
    found: dict[str, Path] = {}
    for place in _PLACES:
        found = {path.name.removesuffix("_A.txt"): path.parent for path in folder.glob(f"{place}/*_A.txt".lstrip("/"))}
        if found and (name is None or name in found):
            break
    if name is not None and name not in found:
        raise UsageError(f"found no {name}_A.txt in {shown}, which has: {_content(folder)}", "data.name")
    if not found:
        raise UsageError(
            f"found no NAME_A.txt in {shown}, which has: {_content(folder)}; expected the folder with TUDataset's text "
            "files, unzipped",
            "data.path",
        )
    if name is None and len(found) > 1:
        raise UsageError(
            f"found several data sets in {shown}: {_few(sorted(found))}: name one (data.name)", "data.path"
        )
    name = name or next(iter(found))
    return TUFiles(found[name], name, Path(shown) / found[name].relative_to(folder))


def _content(folder: Path) -> str:
    return _few(sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())) or "nothing"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_MOST_SHOWN]) + (f", ... ({len(names)})" if len(names) > _MOST_SHOWN else "")


class TUFiles:
    """The files of one data set. Numbers of nodes and graphs count from 0 here, from 1 in the files.

    Args:
        folder: where they lie.
        name: their names' beginning.
        shown: the folder, as messages show it.

    Raises:
        DataError: on reading: not numbers, of another count than the rest, or beyond the free memory.
    """

    def __init__(self, folder: Path, name: str, shown: Path) -> None:
        self.folder, self.name, self.shown = folder, name, shown
        self._check_size()

    def has(self, part: str) -> bool:
        """Whether there is a file of this kind."""
        return (self.folder / self.file(part)).is_file()

    def file(self, part: str) -> str:
        """The file's name."""
        return f"{self.name}_{part}.txt"

    @cached_property
    def graph_of(self) -> np.ndarray:
        """The graph of each node, (nodes,), ascending: every graph has one node at least."""
        table = self._whole("graph_indicator", 1)
        numbers = table.values[:, 0]
        if not len(table):
            raise DataError(f"{table.shown}: found no lines, expected the number of its graph for each node")
        steps = np.diff(numbers, prepend=0)
        row = int(np.argmax((steps < 0) | (steps > 1) | (numbers < 1)))
        before = int(numbers[row - 1]) if row else 0
        if steps[row] < 0 or numbers[row] < 1:
            expected = f"graph {before} or {before + 1}: graphs count from 1, and nodes are sorted by graph"
            raise table.fault(row, f"graph {numbers[row]}", expected.removeprefix("graph 0 or "))
        if steps[row] > 1:
            raise table.fault(row, f"graph {numbers[row]}", f"graph {before + 1}: each has one node at least")
        return numbers - 1

    @cached_property
    def graphs(self) -> int:
        """How many there are."""
        return int(self.graph_of[-1]) + 1

    @cached_property
    def edges(self) -> np.ndarray:
        """From node to node, (edges, 2), each pair within one graph."""
        table, nodes = self._whole("A", 2), len(self.graph_of)
        outside = ((table.values < 1) | (table.values > nodes)).any(axis=1)
        if outside.any():
            row = int(outside.argmax())
            raise table.fault(row, f"nodes {_pair(table, row)}", f"numbers from 1 to {nodes}, the count of nodes")
        edges = table.values - 1
        apart = self.graph_of[edges[:, 0]] != self.graph_of[edges[:, 1]]
        if apart.any():
            row = int(apart.argmax())
            raise table.fault(row, f"nodes {_pair(table, row)} of two graphs", "an edge within one graph")
        return edges

    def labels(self, part: str) -> Table:
        """Whole numbers, a row for each node, edge or graph."""
        return self._counted(self._whole(part), part)

    def attributes(self, part: str) -> np.ndarray:
        """Finite numbers, a row for each node, edge or graph, float32 as PyTorch Geometric reads them."""
        table = self._counted(self._read(part, np.float32), part)
        wrong = ~np.isfinite(table.values).all(axis=1)
        if wrong.any():
            raise table.fault(int(wrong.argmax()), "a number that is not finite", "finite numbers")
        return table.values

    def _counted(self, table: Table, part: str) -> Table:
        kind = part.partition("_")[0]
        by = {"node": "graph_indicator", "edge": "A", "graph": "graph_indicator"}[kind]
        count = {"node": len(self.graph_of), "edge": len(self.edges), "graph": self.graphs}[kind]
        if len(table) != count:
            raise DataError(
                f"{table.shown}: found {len(table)} lines, expected {count}: one for each {kind}, "
                f"as {self.file(by)} has them"
            )
        return table

    def _whole(self, part: str, columns: int | None = None) -> Table:
        table = self._read(part, np.int64)
        if not len(table) and columns:
            return Table(table.path, table.shown, np.empty((0, columns), np.int64))
        if columns and table.values.shape[1] != columns:
            numbers = "one whole number" if columns == 1 else f"{columns} whole numbers"
            raise table.fault(0, f"{table.values.shape[1]} numbers", f"{numbers} on each line")
        return table

    def _read(self, part: str, dtype: type[Any]) -> Table:
        path, shown = self.folder / self.file(part), str(self.shown / self.file(part))
        if not path.is_file():
            raise DataError(f"{self.shown} has no {self.file(part)}, expected it beside {self.file('A')}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of an empty file: a graph may have no edges
                values = np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2, comments=None, encoding="ascii")
        except (ValueError, OverflowError):
            raise _faulty_line(path, shown, dtype) from None
        except OSError as error:
            raise DataError(f"{shown}: cannot be read: {error.strerror or error}") from None
        return Table(path, shown, values)

    def _check_size(self) -> None:
        nbytes = sum(path.stat().st_size for path in self.folder.glob("*.txt") if path.name.startswith(f"{self.name}_"))
        check_room(_GROWTH * nbytes, f"{self.shown}: {self.name}", "measure on a machine with more memory")


def _pair(table: Table, row: int) -> str:
    return f"{table.values[row, 0]} and {table.values[row, 1]}"


def _faulty_line(path: Path, shown: str, dtype: type[Any]) -> DataError:
    """The first line that is not what the others are."""
    words = "a whole number" if dtype is np.int64 else "a number"
    columns: int | None = None
    with path.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            cells = line.split(",") if line != "\n" else []
            wrong = next((cell for cell in cells if not _parses(cell, dtype)), None)
            if wrong is not None:
                return DataError(f"{shown}:{number}: found {wrong.strip()[:_MOST_TEXT]!r}, expected {words}")
            columns = columns or len(cells)
            if cells and len(cells) != columns:
                return DataError(f"{shown}:{number}: found {len(cells)} numbers, expected {columns} as above")
    return DataError(f"{shown}: found what is not text of numbers, expected lines of {words}, separated by commas")


def _parses(cell: str, dtype: type[Any]) -> bool:
    read: Callable[[str], Any] = int if dtype is np.int64 else float
    try:
        dtype(read(cell))
    except (ValueError, OverflowError):
        return False
    return "_" not in cell
