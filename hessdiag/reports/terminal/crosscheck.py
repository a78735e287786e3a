"""Our numbers beside those of independent implementations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from hessdiag.reports.numbers import NONE, number
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import GAP, INDENT, Cell, Column, heading, note, split_name, table
from hessdiag.results import CrosscheckResult, CrosscheckRow

__all__ = ["comparison", "crosscheck"]

_COLUMNS = ("hessdiag", "reference", "difference", "tolerance", "agrees")
_UNIT = {"relative": "rel.", "standard errors": "stderr"}
_VERDICT = {True: ("yes", "green"), False: ("NO", "bold red"), None: ("n/a", "yellow")}


def crosscheck(result: CrosscheckResult, canvas: Canvas) -> Iterator[RenderableType]:
    """One row for each quantity, under the name of its reference; notes stand underneath."""
    yield heading(canvas, "Crosscheck")
    yield from comparison(result.rows, canvas)


def comparison(compared: Sequence[CrosscheckRow], canvas: Canvas) -> Iterator[RenderableType]:
    """The rows alone, as other reports have them too."""
    numbers = {row: _numbers(row) for row in compared}
    fixed = sum(max(map(len, cells)) + GAP for cells in zip(_COLUMNS, *numbers.values(), strict=True))
    room = max(canvas.width - INDENT - fixed - GAP, 12)
    rows: list[tuple[Cell, ...]] = []
    for reference, group in itertools.groupby(compared, key=lambda row: row.reference_name):
        rows.append((split_name(canvas.literal(reference), room), *("" for _ in _COLUMNS)))
        for row in group:
            quantity = split_name("  " + canvas.literal(row.quantity), room, hang=4)
            rows.append((quantity, *numbers[row][:-1], canvas.text(*_VERDICT[row.agrees])))
    yield table(canvas, [Column("against", "left"), *map(Column, _COLUMNS[:-1]), Column("agrees", "left")], rows)
    if any(row.unit == "standard errors" for row in compared):
        yield note(canvas, "rel.: an eigenvalue's difference over the largest |eigenvalue|; stderr: in standard errors")
    for row in compared:
        if row.note:
            yield note(canvas, f"{row.quantity} against {row.reference_name}: {row.note}")


def _numbers(row: CrosscheckRow) -> tuple[str, ...]:
    difference = NONE if row.difference is None else number(row.difference, 2)
    tolerance = f"{number(row.tolerance, 2)} {_UNIT[row.unit]}"
    return number(row.value), number(row.reference), difference, tolerance, _VERDICT[row.agrees][0]
