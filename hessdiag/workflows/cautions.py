"""What a reader of a report must not miss, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessdiag.reports.numbers import count, number, percent
from hessdiag.results import Caution, DensityResult, EigenvaluesResult, GapResult, Report, TraceResult
from hessdiag.spec.schema import AuditSpec

__all__ = ["general_cautions", "section_cautions"]


def general_cautions(report: Report) -> list[Caution]:
    """About everything in the report."""
    said = []
    left_out = report.target.checkpoint.left_out if report.target.checkpoint is not None else ()
    if left_out:
        first = ", ".join(left_out[:3]) + ", ..." * (len(left_out) > 3)
        said.append(f"the checkpoint's tensors beside the model's are left out: {len(left_out)} (first: {first})")
    engine = report.target.engine
    if engine is not None and engine.relative_error is not None:
        said.append(
            f"products are by {engine.name}, with an error of about {engine.relative_error:.1e}: "
            "some operation has no second derivative"
        )
    if report.target.dtype == "bfloat16":
        said.append("the model is in bfloat16: its numbers carry about two digits (measure with dtype float32)")
    return [Caution(text) for text in said]


def section_cautions(name: str, result: Any, settings: AuditSpec, *, cut_short: bool) -> list[Caution]:
    """About one section that is finished, or that ``settings.max_time`` ``cut_short``."""
    text = _SECTIONS[name](result, settings, cut_short)
    return [Caution(text, name)] if text else []


def _eigenvalues(result: EigenvaluesResult, settings: AuditSpec, cut_short: bool) -> str:
    if result.converged:
        return ""
    pairs = [*result.largest, *result.smallest]
    largest = max((abs(pair.value) for pair in pairs), default=0.0)
    shown = ""
    if largest > 0:
        worst = max(pair.residual_norm for pair in pairs) / largest
        shown = f"the worst residual is {number(worst, 2)} of the largest |eigenvalue|, "
        shown += f"asked for {number(result.rtol, 2)}; "
    return f"not converged: {shown}{_way_on('eigenvalues.max_matvecs', 'eigenvalues.rtol', cut_short)}"


def _trace(result: TraceResult, settings: AuditSpec, cut_short: bool) -> str:
    if result.converged:
        return ""
    low, high = result.interval
    shown = ""
    if result.value:
        reached = (high - low) / 2 / abs(result.value)
        shown = f"the interval reaches {percent(reached)} to each side, asked for {percent(result.rtol)}; "
    return f"not converged: {shown}{_way_on('trace.max_matvecs', 'trace.rtol', cut_short)}"


def _gap(result: GapResult, settings: AuditSpec, cut_short: bool) -> str:
    asked = settings.gap.draws if settings.gap is not None else result.draws
    if cut_short:
        return f"{result.draws} of {count(asked, 'draw')}: {_TIME_UP}, raise it"
    if result.search is not None and result.search.largest is None and not result.converged:
        return "sigma auto: draws left open whether some sigma holds: raise gap.draws"
    if not result.converged:
        return f"not converged: {count(asked, 'draw')} do not know the deviations to gap.rtol: raise gap.draws or it"
    return ""


def _density(result: DensityResult, settings: AuditSpec, cut_short: bool) -> str:
    asked = settings.density.steps if settings.density is not None else result.steps
    return f"{result.steps} of {count(asked, 'Lanczos step')}: {_TIME_UP}, raise it" if cut_short else ""


_TIME_UP = "the time was up (max_time)"
_SECTIONS: dict[str, Callable[[Any, AuditSpec, bool], str]] = {
    "eigenvalues": _eigenvalues,
    "trace": _trace,
    "gap": _gap,
    "density": _density,
}


def _way_on(budget: str, tolerance: str, cut_short: bool) -> str:
    return f"{_TIME_UP}, raise it or {tolerance}" if cut_short else f"raise {budget} or {tolerance}"
