"""Our numbers beside those of an independent implementation."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from hessdiag.reports.numbers import NONE, number
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import Cell, Column, heading, note, table
from hessdiag.results import CrosscheckResult, CrosscheckRow

__all__ = ["crosscheck"]

_UNIT = {"relative": "relative", "standard errors": "stderr"}


def crosscheck(result: CrosscheckResult, canvas: Canvas) -> Iterator[RenderableType]:
    """One row for each quantity and reference; rows that could not be had say why underneath."""
    yield heading(canvas, "Crosscheck")
    yield table(
        canvas,
        [
            Column("quantity", "left", folded=True),
            Column("hessdiag"),
            Column("reference"),
            Column("by", "left", folded=True),
            Column("difference"),
            Column("tolerance", "left"),
            Column("agrees", "left"),
        ],
        [_row(row, canvas) for row in result.rows],
    )
    for row in result.rows:
        if row.note:
            yield note(canvas, f"{row.quantity} ({row.reference_name}): {row.note}")


def _row(row: CrosscheckRow, canvas: Canvas) -> tuple[Cell, ...]:
    return (
        row.quantity,
        number(row.value),
        number(row.reference),
        row.reference_name,
        NONE if row.difference is None else number(row.difference, 2),
        f"{number(row.tolerance, 2)} {_UNIT[row.unit]}",
        _verdict(row.agrees, canvas),
    )


def _verdict(agrees: bool | None, canvas: Canvas) -> Text:
    if agrees is None:
        return canvas.text("not available", "yellow")
    return canvas.text("yes", "green") if agrees else canvas.text("NO", "bold red")
