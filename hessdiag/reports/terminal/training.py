"""A training run's history: one line for each epoch, what was not measured then left empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from hessdiag.reports.numbers import align, measured, number, percent
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import Column, table

__all__ = ["training"]

Row = Mapping[str, Any]


def training(history: Sequence[Row], canvas: Canvas) -> RenderableType:
    """The history as a table; a column that no row has is left out."""
    columns = [
        ("epoch", [str(row["epoch"]) for row in history]),
        ("lr", [number(row["lr"], 3) for row in history]),
        ("loss", _each(history, "loss", lambda value: number(value, 4))),
        ("accuracy", _each(history, "accuracy", percent)),
        ("validation", _each(history, "validation_loss", lambda value: number(value, 4))),
        ("accuracy", _each(history, "validation_accuracy", percent)),
        ("Tr[H]", _with_errors(history, "trace", "trace_stderr")),
        ("λ1", _with_errors(history, "largest_eigenvalue", "residual_norm")),
        ("F − f", _with_errors(history, "gap", "gap_stderr")),
        ("lr λ1/2", _each(history, "edge_of_stability", lambda value: number(value, 2))),
    ]
    shown = [(title, cells) for title, cells in columns if any(cells)]
    return table(canvas, [Column(title) for title, _ in shown], list(zip(*(cells for _, cells in shown), strict=True)))


def _each(history: Sequence[Row], key: str, written: Callable[[float], str]) -> list[str]:
    return [written(row[key]) if key in row else "" for row in history]


def _with_errors(history: Sequence[Row], key: str, error: str) -> list[str]:
    there = [row for row in history if key in row]
    cells = iter(align([measured(row[key], row[error]) for row in there]))
    return [next(cells) if key in row else "" for row in history]
