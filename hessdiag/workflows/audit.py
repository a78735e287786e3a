"""The main job: loss, gradient, eigenvalues, trace, noise gap and density of one problem, as one report."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from hessdiag.cost import Cost
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import MeasurementError
from hessdiag.estimators.density import density_steps
from hessdiag.estimators.eigenvalues import eigenvalue_steps
from hessdiag.estimators.noise_gap import GapDraws, gap_steps, gap_table
from hessdiag.estimators.steps import Steps, run_together
from hessdiag.estimators.trace import trace_steps
from hessdiag.problem import Problem
from hessdiag.results import Report, Target
from hessdiag.spec.schema import AuditSpec, TraceSpec

__all__ = ["SECTIONS", "audit", "blank_report"]

Watch = Callable[[Report, str], None]
"""Called with what is finished so far whenever that changes, and with what is measured next, as "eigenvalues, trace"
("" at the end)."""


def audit(
    problem: Problem,
    settings: AuditSpec | None = None,
    *,
    seed: int = 0,
    command: str = "audit",
    previous: Report | None = None,
    watch: Watch = lambda report, section: None,
) -> Report:
    """Measure everything that ``settings`` asks for.

    Args:
        problem: what to measure.
        settings: what stands under ``audit:`` in a spec; by default in the one that the problem came from. A part
            that is None is skipped. The noise gap needs the trace, which is measured with it.
        seed: of all probes and start vectors; it never changes H.
        command: goes into the report.
        previous: the report of a run that did not come to its end; its finished sections are taken over if it
            measured the same problem with the same settings, which the loss and the gradient norm must confirm
            bit for bit.
        watch: is shown the partial report before each section.

    Returns:
        The report; status ``complete``.

    Raises:
        HessdiagError: a section could not be measured; ``watch`` has seen the rest with status ``failed``, as it
            has when anything else is raised.
    """
    settings = settings or problem.settings or AuditSpec()
    if settings.gap is not None and settings.trace is None:
        settings = settings.model_copy(update={"trace": TraceSpec()})
    H = HessianOperator(problem)
    report = blank_report(command, problem, H, settings, seed)
    watch(report, "gradient")
    loss = problem.evaluate()
    report = replace(report, loss=loss, gradient_norm=_gradient_norm(problem, loss))
    resumed = _finished_sections(previous, report)
    report = replace(report, **resumed)
    spent_before = sum((section.cost for section in resumed.values()), Cost())
    measuring = _Measuring(
        problem,
        H,
        settings,
        seed,
        report,
        lambda seen, sections: watch(_with_totals(seen, problem, spent_before), sections),
    )
    try:
        report = measuring.measured([name for name in SECTIONS if getattr(settings, name) and name not in resumed])
    except Exception:
        watch(replace(_with_totals(measuring.report, problem, spent_before), status="failed"), "")
        raise
    report = replace(_with_totals(report, problem, spent_before), status="complete")
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


class _Measuring:
    """Runs the sections' estimators side by side, and keeps the report of what is finished."""

    def __init__(
        self, problem: Problem, H: HessianOperator, settings: AuditSpec, seed: int, report: Report, watch: Watch
    ) -> None:
        self.problem, self.H, self.settings, self.seed = problem, H, settings, seed
        self.report, self._watch = report, watch
        self._drawn: GapDraws | None = None

    def measured(self, wanted: list[str]) -> Report:
        """The report with these sections in it."""
        for together in _ROUNDS:
            self._left = [name for name in together if name in wanted]
            if self._left:
                self._watch(self.report, self._title())
                estimators = {name: _STEPS[name](self) for name in self._left}
                run_together(self.H, estimators, finished=self._finished)
        return self.report

    def options(self, section: str) -> dict[str, Any]:
        """What the spec says of a section, as keyword arguments."""
        plan: dict[str, Any] = getattr(self.settings, section).model_dump()
        return plan | {"seed": self.seed}

    def _finished(self, name: str, result: Any) -> None:
        if name == "gap":
            self._drawn, result = result, None
        else:
            self.report = replace(self.report, **{name: result})
        if self._drawn is not None and self.report.trace is not None:  # the gap is held against the trace
            self.report = replace(self.report, gap=gap_table(self._drawn, self.report.trace))
            self._drawn = None
        self._left.remove(name)
        if self._left:
            self._watch(self.report, self._title())

    def _title(self) -> str:
        return ", ".join(self._left)


def _gap_steps(job: _Measuring) -> Steps[GapDraws]:
    options = job.options("gap")
    return gap_steps(job.problem, sigmas=options.pop("sigma"), **options)


_STEPS: dict[str, Callable[[_Measuring], Steps[Any]]] = {
    "eigenvalues": lambda job: eigenvalue_steps(job.H, **job.options("eigenvalues")),
    "trace": lambda job: trace_steps(job.H, **job.options("trace")),
    "gap": _gap_steps,
    "density": lambda job: density_steps(job.H, **job.options("density")),
}
SECTIONS = tuple(_STEPS)
_ROUNDS = (("eigenvalues", "trace", "gap"), ("density",))
"""What shares its passes over the data."""


def blank_report(command: str, problem: Problem, H: HessianOperator, settings: AuditSpec, seed: int) -> Report:
    """A report of what is to be measured, with nothing measured yet."""
    return Report(
        command=command,
        status="partial",
        target=Target(
            checkpoint=problem.checkpoint,
            parameters=problem.n,
            parameters_total=sum(p.numel() for p in problem.model.parameters()),
            dtype=str(problem.model_dtype).removeprefix("torch."),
            device=str(problem.device),
            engine=H.engine_info,
        ),
        data=problem.data_info,
        seed=seed,
        settings={
            "loss": _described(problem.loss),
            "parameters": {"include": list(problem.include), "exclude": list(problem.exclude)},
            "audit": settings.model_dump(mode="json", exclude_none=True),
        },
        environment={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "threads": str(torch.get_num_threads()),
        },
    )


def _described(loss: Any) -> dict[str, Any]:
    options = {f.name: getattr(loss, f.name) for f in fields(loss)} if is_dataclass(loss) else {}
    return {"name": type(loss).__name__, **{key: _shown(value) for key, value in options.items()}}


def _shown(value: Any) -> Any:
    """An option of a loss as the report has it; never with an address in it, which no two runs share."""
    if isinstance(value, torch.nn.Module):
        return repr(value)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return value if isinstance(value, (int, float, str, tuple, list, dict, type(None))) else type(value).__qualname__


def _finished_sections(previous: Report | None, now: Report) -> dict[str, Any]:
    """The sections of an interrupted run that this run may take over."""
    if previous is None or previous.status == "complete":
        return {}
    same = ("version", "command", "target", "data", "seed", "settings", "environment", "loss", "gradient_norm")
    was, new = previous.to_dict(), now.to_dict()  # as documents: reading one back does not restore tuples
    if any(was.get(name) != new.get(name) for name in same):
        return {}
    return {section: getattr(previous, section) for section in SECTIONS if getattr(previous, section) is not None}


def _with_totals(report: Report, problem: Problem, spent_before: Cost) -> Report:
    return replace(report, cost=problem.meter.read() + spent_before, warnings=tuple(_warnings(report)))


def _warnings(report: Report) -> list[str]:
    """What a reader of the JSON must not miss."""
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
    if report.eigenvalues is not None and not report.eigenvalues.converged:
        said.append("eigenvalues: not every residual met rtol: raise max_matvecs, or rtol")
    if report.trace is not None and not report.trace.converged:
        said.append("trace: the interval is wider than rtol asks: raise max_matvecs, or rtol")
    return said
