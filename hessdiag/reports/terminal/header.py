"""The top of a report: what was measured, on what data, by what means."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from hessdiag.reports.numbers import count, number
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import GAP, INDENT, Column, split_name, table
from hessdiag.results import DataInfo, Report, Target

__all__ = ["header"]

_STATUS = {
    "partial": ("partial: finished sections only", "bold yellow"),
    "failed": ("failed: what is shown was finished before the failure", "bold red"),
}


def header(report: Report, canvas: Canvas) -> Iterator[RenderableType]:
    """The command and its status, then the facts that every number below depends on."""
    title = canvas.text(f"hessdiag {report.command}", "bold")
    if report.status in _STATUS:
        title = Text("   ").join([title, canvas.text(*_STATUS[report.status])])
    yield title
    facts = {
        "checkpoint": _checkpoint(report.target),
        "parameters": f"{count(report.target.parameters)} measured of {count(report.target.parameters_total)}",
        "data": _data(report.data),
        "computed": _means(report),
        "loss": number(report.loss) if report.loss is not None else "",
        "gradient norm": number(report.gradient_norm) if report.gradient_norm is not None else "",
    }
    width = canvas.width - INDENT - GAP - max(map(len, facts))
    rows = [
        (canvas.text(name, "dim"), split_name(canvas.literal(fact), width) if name == "checkpoint" else fact)
        for name, fact in facts.items()
        if fact
    ]
    yield table(canvas, [Column("", "left"), Column("", "left", folded=True)], rows)


def _checkpoint(target: Target) -> str:
    return "none: the weights as they were built" if target.checkpoint is None else target.checkpoint.path


def _data(data: DataInfo) -> str:
    shown = f"{count(data.examples, 'example')} in {count(data.batches, 'batch', 'batches')}"
    # The loss's own denominator is news only where it is not the number of examples.
    return shown if data.weight == data.examples else f"{shown}; mean over {count(data.weight)} units"


def _means(report: Report) -> str:
    target = report.target
    parts = [target.dtype, target.device]
    if target.engine is not None:
        error = target.engine.relative_error
        parts.append(target.engine.name + (f" (rel. error {error:.0e})" if error is not None else ""))
    return ", ".join([*parts, f"seed {report.seed}"])
