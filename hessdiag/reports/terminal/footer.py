"""The bottom of a report: what it cost, what to beware of, where it lies."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from hessdiag.cost import Cost
from hessdiag.reports.numbers import count, duration
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import split_name
from hessdiag.results import Report

__all__ = ["footer"]


def footer(report: Report, saved_to: str | None, canvas: Canvas) -> Iterator[RenderableType]:
    """Cost, then warnings, then the file."""
    yield canvas.text("\n" + _cost(report.cost))
    for warning in report.warnings:
        if not warning.section:  # a section's own stand there
            yield canvas.text(f"Warning: {warning}", "yellow")
    if saved_to is not None:
        prefix = "Report saved to "
        yield Text.assemble(prefix, split_name(canvas.literal(saved_to), canvas.width - len(prefix)))


def _cost(cost: Cost) -> str:
    kinds = {"forward": cost.forward, "gradient": cost.gradient, "Hessian-vector": cost.hvp}
    passes = ", ".join(f"{count(amount)} {kind}" for kind, amount in kinds.items() if amount)
    return f"Passes over the data: {passes or 'none'}; {duration(cost.seconds)}"
