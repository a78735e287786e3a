"""The main job: loss, gradient, eigenvalues, trace, noise gap and density of one problem, as one report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from hessdiag.cost import Cost
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import MeasurementError
from hessdiag.problem import Problem
from hessdiag.results import Report
from hessdiag.spec.schema import AuditSpec, TraceSpec
from hessdiag.workflows.forecast import forecast
from hessdiag.workflows.identity import blank_report, same_run
from hessdiag.workflows.sections import Sections, Watch

__all__ = ["Told", "Watch", "audit", "audit_of"]

Told = Callable[[Cost], None]
"""Called once, before the sections begin, with what they will cost, roughly."""


def audit(
    problem: Problem,
    settings: AuditSpec | None = None,
    *,
    seed: int = 0,
    command: str = "audit",
    previous: Report | None = None,
    watch: Watch = lambda report, section: None,
    told: Told = lambda expected: None,
    started: float | None = None,
) -> Report:
    """Measure everything that ``settings`` asks for.

    The sections run side by side: one pass over the data serves all of them, and none of their numbers depends on
    what runs beside it.

    Args:
        problem: what to measure.
        settings: what stands under ``audit:`` in a spec; by default in the one that the problem came from. A part
            that is None is skipped. The noise gap needs the trace, which is measured with it.
        seed: of all probes and start vectors; it never changes H.
        command: goes into the report.
        previous: the report of a run that did not come to its end; its finished sections are taken over if it
            measured the same problem with the same settings, which the loss and the gradient norm must confirm
            bit for bit.
        watch: is shown the partial report, and told what is under way, whenever that changes.
        told: is told beforehand what the sections will cost, roughly.
        started: when the clock of ``settings.max_time`` began to run, by ``time.perf_counter``; default: now.

    Returns:
        The report; status ``complete``.

    Raises:
        HessdiagError: a section could not be measured; ``watch`` has seen the rest with status ``failed``, as it
            has when anything else is raised.
    """
    return audit_of(
        HessianOperator(problem),
        settings or problem.settings or AuditSpec(),
        seed=seed,
        command=command,
        previous=previous,
        watch=watch,
        told=told,
        started=time.perf_counter() if started is None else started,
    )


def audit_of(
    H: HessianOperator,
    settings: AuditSpec,
    *,
    seed: int,
    command: str,
    previous: Report | None,
    watch: Watch,
    told: Told,
    started: float,
) -> Report:
    """:func:`audit` by an operator that there is already."""
    if settings.gap is not None and settings.trace is None:
        settings = settings.model_copy(update={"trace": TraceSpec()})
    report = blank_report(command, H, settings, seed)
    watch(report, "gradient")
    loss = H.problem.evaluate()
    begun = time.perf_counter()
    report = replace(report, loss=loss, gradient_norm=_gradient_norm(H.problem, loss))
    seconds_per_gradient = time.perf_counter() - begun
    sections = Sections(H, settings, seed, report, watch)
    if previous is not None and previous.status != "complete" and same_run(previous, report):
        sections.take_over(previous)
    told(forecast(settings, sections.wanted, seconds_per_gradient, split=H.split.available))
    try:
        sections.measure(deadline=math.inf if settings.max_time is None else started + settings.max_time)
    except Exception:
        watch(replace(sections.report, status="failed"), "")
        raise
    report = replace(sections.report, status="complete")
    watch(report, "")
    return report


def _gradient_norm(problem: Problem, loss: float) -> float:
    norm = float(torch.linalg.vector_norm(problem.gradient().double()))
    if not math.isfinite(norm):
        raise MeasurementError(
            f"the gradient of the loss has norm {norm}, expected a finite number, although the loss is "
            f"{loss:g}: look for sqrt, norm, log or division at 0 in the model or the loss"
        )
    return norm
