"""The main job: loss, gradient, eigenvalues, trace, noise gap and density of one problem, as one report."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from hessdiag.cost import Cost
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import MeasurementError
from hessdiag.estimators.density import density_steps
from hessdiag.estimators.eigenvalues import eigenvalue_steps
from hessdiag.estimators.gap_draws import GapDraws
from hessdiag.estimators.gap_table import gap_table
from hessdiag.estimators.noise_gap import gap_steps
from hessdiag.estimators.steps import OutOfTime, Steps, run_together
from hessdiag.estimators.trace import trace_steps
from hessdiag.problem import Problem
from hessdiag.results import SECTIONS, Caution, Report, Target
from hessdiag.spec.schema import AuditSpec, TraceSpec
from hessdiag.workflows.cautions import general_cautions, section_cautions
from hessdiag.workflows.forecast import forecast

__all__ = ["Told", "Watch", "audit", "audit_of", "blank_report"]

Watch = Callable[[Report, str], None]
"""Called with what is finished so far whenever that changes, and with what is measured next, in words, as
"eigenvalues, trace" ("" at the end)."""
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
        watch: is shown the partial report whenever a section is finished.
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
    problem = H.problem
    report = blank_report(command, problem, H, settings, seed)
    watch(report, "gradient")
    loss = problem.evaluate()
    begun = time.perf_counter()
    report = replace(report, loss=loss, gradient_norm=_gradient_norm(problem, loss))
    seconds_per_gradient = time.perf_counter() - begun
    resumed = _resumed(previous, report)
    measuring = _Measuring(H, settings, seed, replace(report, **resumed), watch)
    if previous is not None and resumed:
        measuring.take_over(previous)
    wanted = [name for name in _STEPS if getattr(settings, name) and name not in resumed]
    told(forecast(settings, wanted, seconds_per_gradient))
    try:
        measuring.measure(wanted, None if settings.max_time is None else started + settings.max_time)
    except Exception:
        watch(replace(measuring.report, status="failed"), "")
        raise
    report = replace(measuring.report, status="complete")
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

    def __init__(self, H: HessianOperator, settings: AuditSpec, seed: int, report: Report, watch: Watch) -> None:
        self.problem, self.H, self.settings, self.seed = H.problem, H, settings, seed
        self._report, self._watch = report, watch
        self._spent_before = Cost()
        self._cautions: list[Caution] = []
        self._cut_short: set[str] = set()
        self._drawn: GapDraws | None = None
        self._left: list[str] = []

    @property
    def report(self) -> Report:
        """What is finished, with its cost and its cautions."""
        said = [caution for name in SECTIONS for caution in self._cautions if caution.section == name]
        return replace(
            self._report,
            cost=self.problem.meter.read() + self._spent_before,
            warnings=(*general_cautions(self._report), *said),
        )

    def take_over(self, previous: Report) -> None:
        """Sections that an earlier run finished keep their costs and their cautions."""
        finished = self._report.sections
        self._spent_before = sum((getattr(previous, name).cost for name in finished), Cost())
        self._cautions += [caution for caution in previous.warnings if caution.section in finished]

    def measure(self, wanted: list[str], deadline: float | None) -> None:
        """Measure these sections."""
        for together in _ROUNDS:
            self._left = [name for name in together if name in wanted]
            if self._left:
                self._show()
                estimators = {name: self._noted(name, _STEPS[name](self)) for name in self._left}
                run_together(self.H, estimators, finished=self._finished, deadline=deadline)

    def options(self, section: str) -> dict[str, Any]:
        """What the spec says of a section, as keyword arguments."""
        plan: dict[str, Any] = getattr(self.settings, section).model_dump()
        return plan | {"seed": self.seed}

    def _noted(self, name: str, steps: Steps[Any]) -> Steps[Any]:
        """The same steps; it is noted when the time was up before they were done."""
        try:
            request = next(steps)
            while True:
                try:
                    answer = yield request
                except OutOfTime as signal:
                    self._cut_short.add(name)
                    request = steps.throw(signal)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            return stop.value

    def _finished(self, name: str, result: Any) -> None:
        self._left.remove(name)
        if name == "gap":
            self._drawn = result
        else:
            self._take(name, result)
        if self._drawn is not None and self._report.trace is not None:  # the gap is held against the trace
            self._take("gap", gap_table(self._drawn, self._report.trace))
            self._drawn = None
        if self._left:
            self._show()

    def _take(self, name: str, result: Any) -> None:
        self._report = replace(self._report, **{name: result})
        self._cautions += section_cautions(name, result, self.settings, cut_short=name in self._cut_short)

    def _show(self) -> None:
        self._watch(self.report, ", ".join(SECTIONS[name] for name in self._left))


def _gap_steps(job: _Measuring) -> Steps[GapDraws]:
    options = job.options("gap")
    return gap_steps(job.H, sigmas=options.pop("sigma"), **options)


_STEPS: dict[str, Callable[[_Measuring], Steps[Any]]] = {
    "eigenvalues": lambda job: eigenvalue_steps(job.H, **job.options("eigenvalues")),
    "trace": lambda job: trace_steps(job.H, **job.options("trace")),
    "gap": _gap_steps,
    "density": lambda job: density_steps(job.H, **job.options("density")),
}
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


def _resumed(previous: Report | None, now: Report) -> Mapping[str, Any]:
    """The sections of an interrupted run that this run may take over."""
    if previous is None or previous.status == "complete":
        return {}
    same = ("version", "command", "target", "data", "seed", "settings", "environment", "loss", "gradient_norm")
    was, new = previous.to_dict(), now.to_dict()  # as documents: reading one back does not restore tuples
    if any(was.get(name) != new.get(name) for name in same):
        return {}
    return {name: getattr(previous, name) for name in previous.sections if name in _STEPS}
