"""The extreme eigenvalues, each beside its measured residual."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from hessdiag.reports.numbers import Measured, align, count, interval, measured, number
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import Column, heading, line, note, table
from hessdiag.results import EigenvalueBounds, EigenvaluesResult

__all__ = ["eigenvalues"]


def eigenvalues(result: EigenvaluesResult, parameters: int, canvas: Canvas) -> Iterator[RenderableType]:
    """The largest from the top down, then the smallest, the very smallest last."""
    pairs = [*result.largest, *reversed(result.smallest)]
    names = [f"λ{rank}" for rank in range(1, len(result.largest) + 1)]
    names += [f"λn-{above}" if above else "λn" for above in reversed(range(len(result.smallest)))]
    values = align([Measured(measured(p.value, p.residual_norm).value, "") for p in pairs])
    residuals = [f"{p.residual_norm:.1e}" for p in pairs]
    rows = list(zip(names, values, residuals, strict=True))
    if result.largest and result.smallest and len(pairs) < parameters:
        rows.insert(len(result.largest), ("⋮", "", ""))
    yield heading(canvas, "Eigenvalues")
    yield table(canvas, [Column("", "left"), Column("value"), Column("‖Hv − λv‖")], rows)
    if result.bounds is not None:
        yield line(canvas, _bounds(result.bounds))
    restarts = [count(result.restarts, "restart")] * bool(result.restarts)
    spent = [count(result.matvecs, "product"), *restarts, *["converged"] * result.converged]
    yield note(canvas, ", ".join([result.method, *spent]))
    yield note(canvas, "each value is within ‖Hv − λv‖ of an eigenvalue of H")


def _bounds(bounds: EigenvalueBounds) -> str:
    precision = max(abs(bounds.lower), abs(bounds.upper)) / 500
    within = interval(bounds.lower, bounds.upper, precision)
    return f"no eigenvalue lies outside {within} ({number(100 * bounds.confidence, 4)} % sure)"
