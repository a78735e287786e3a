"""A training run's history: one line for each epoch, what was not measured then left empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from hessdiag.reports.numbers import align, measured, number, percent
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import GAP, INDENT, Column, note, table

__all__ = ["training"]

Row = Mapping[str, Any]
_SPARED = ("lr", "edge_of_stability", "accuracy", "gap", "validation_accuracy")  # in this order, in a narrow window


def training(history: Sequence[Row], canvas: Canvas) -> Iterator[RenderableType]:
    """The history as a table, without the columns that no row has; and what its first row says of the data."""
    columns = {
        "epoch": ("epoch", [str(row["epoch"]) for row in history]),
        "lr": ("lr", [number(row["lr"], 3) for row in history]),
        "loss": ("loss", _each(history, "loss", lambda value: number(value, 4))),
        "accuracy": ("accuracy", _each(history, "accuracy", percent)),
        "validation_loss": ("validation", _each(history, "validation_loss", lambda value: number(value, 4))),
        "validation_accuracy": ("accuracy", _each(history, "validation_accuracy", percent)),
        "trace": ("Tr[H]", _with_errors(history, "trace", "trace_stderr")),
        "largest_eigenvalue": ("λ1", _with_errors(history, "largest_eigenvalue", "residual_norm")),
        "gap": ("F − f", _with_errors(history, "gap", "gap_stderr")),
        "edge_of_stability": ("lr λ1/2", _each(history, "edge_of_stability", lambda value: number(value, 2))),
    }
    shown = _fitting({key: column for key, column in columns.items() if any(column[1])}, canvas.width)
    titles, cells = zip(*shown.values(), strict=True)
    yield table(canvas, [Column(title) for title in titles], list(zip(*cells, strict=True)))
    for row in history[:1]:
        if "evaluated" in row:
            sharp = f"; sharpness on {row['monitored']}" if "trace" in shown else ""
            yield note(canvas, f"loss and accuracy on {row['evaluated']}{sharp}")
        yield from (note(canvas, words) for words in row.get("notes", []))


def _fitting(columns: dict[str, tuple[str, list[str]]], width: int) -> dict[str, tuple[str, list[str]]]:
    """As many columns as there is room for; the history's file has them all."""
    kept = dict(columns)
    for key in _SPARED:
        if INDENT + sum(GAP + max(map(len, [title, *cells])) for title, cells in kept.values()) <= width:
            break
        kept.pop(key, None)
    return kept


def _each(history: Sequence[Row], key: str, written: Callable[[float], str]) -> list[str]:
    return [written(row[key]) if key in row else "" for row in history]


def _with_errors(history: Sequence[Row], key: str, error: str) -> list[str]:
    there = [row for row in history if key in row]
    cells = iter(align([measured(row[key], row[error]) for row in there]))
    return [next(cells) if key in row else "" for row in history]
