"""The sections of an audit, measured side by side, with what they hand to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hessdiag.cost import Cost
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.estimators.density import density_steps
from hessdiag.estimators.eigenvalues import Subspace, eigenvalue_steps
from hessdiag.estimators.gap_draws import GapDraws
from hessdiag.estimators.gap_table import gap_table
from hessdiag.estimators.noise_gap import gap_steps
from hessdiag.estimators.steps import OutOfTime, Steps, run_together
from hessdiag.estimators.trace import trace_steps
from hessdiag.results import SECTIONS, Caution, DensityResult, EigenvaluesResult, Report, TraceResult
from hessdiag.spec.schema import AuditSpec
from hessdiag.workflows.cautions import general_cautions, section_cautions

__all__ = ["Sections", "Watch"]

Watch = Callable[[Report, str], None]
"""Called with what is finished so far whenever that changes, and with what is measured next, in words, as
"eigenvalues, trace" ("" at the end)."""


class Sections:
    """Runs the sections' estimators side by side, and keeps the report of what is finished.

    Args:
        H: what is measured.
        settings: what of it, and how closely.
        seed: of all probes.
        report: the report before anything is measured.
        watch: shown the report whenever what is under way changes.
    """

    def __init__(self, H: HessianOperator, settings: AuditSpec, seed: int, report: Report, watch: Watch) -> None:
        self.H, self.settings, self.seed = H, settings, seed
        self.wanted = [name for name in _STEPS if getattr(settings, name) is not None]
        self.left_by_eigenvalues: Subspace | None = None
        self._report, self._watch = report, watch
        self._spent_before = Cost()
        self._cautions: list[Caution] = []
        self._cut_short: set[str] = set()
        self._drawn: GapDraws | None = None
        self._under_way: list[str] = []

    @property
    def report(self) -> Report:
        """What is finished, with its cost and its cautions."""
        said = [caution for name in SECTIONS for caution in self._cautions if caution.section == name]
        return replace(
            self._report,
            cost=self.H.meter.read() + self._spent_before,
            warnings=(*general_cautions(self._report), *said),
        )

    @property
    def deflated(self) -> bool:
        """Whether the trace uses the eigenvalues' vectors: where the loss has no Gauss-Newton part, or if asked."""
        plan = self.settings.trace
        if plan is None or self.settings.eigenvalues is None:
            return False
        return plan.method == "deflated" or (plan.method == "auto" and not self.H.split.available)

    def take_over(self, previous: Report) -> None:
        """Keep the sections that an earlier run finished, with their costs and cautions."""
        finished = [name for name in previous.sections if name in self.wanted]
        heirs = {"density", "trace"} if self.deflated else {"density"}
        if "eigenvalues" in finished and not heirs.intersection(self.wanted).issubset(finished):
            finished.remove("eigenvalues")  # their vectors, which no report holds, are waited for
        self.wanted = [name for name in self.wanted if name not in finished]
        self._report = replace(self._report, **{name: getattr(previous, name) for name in finished})
        self._spent_before = sum((getattr(previous, name).cost for name in finished), Cost())
        self._cautions += [caution for caution in previous.warnings if caution.section in finished]

    def measure(self, *, deadline: float) -> None:
        """Measure what is wanted; see :func:`run_together` for the ``deadline``."""
        if self.deflated or "density" in self.wanted:
            self.left_by_eigenvalues = Subspace()
        for together in _DEFLATED_ROUNDS if self.deflated else _ROUNDS:
            self._under_way = [name for name in together if name in self.wanted]
            if self._under_way:
                self._show()
                estimators = {name: self._noted(name, _STEPS[name](self)) for name in self._under_way}
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
        self._under_way.remove(name)
        if name == "gap":
            self._drawn = result
        else:
            self._take(name, result)
        if self._drawn is not None and self._report.trace is not None:  # the gap is held against the trace
            self._take("gap", gap_table(self._drawn, self._report.trace))
            self._drawn = None
        if self.left_by_eigenvalues is not None and "density" not in self.wanted:
            self.left_by_eigenvalues.started = None  # many vectors, of use to the density alone
        if self._under_way:
            self._show()

    def _take(self, name: str, result: Any) -> None:
        self._report = replace(self._report, **{name: result})
        self._cautions += section_cautions(name, result, self.settings, cut_short=name in self._cut_short)

    def _show(self) -> None:
        self._watch(self.report, ", ".join(SECTIONS[name] for name in self._under_way))


def _eigenvalue_steps(job: Sections) -> Steps[EigenvaluesResult]:
    options = job.options("eigenvalues")
    return eigenvalue_steps(job.H, memory=job.settings.memory, subspace=job.left_by_eigenvalues, **options)


def _trace_steps(job: Sections) -> Steps[TraceResult]:
    left, basis = job.left_by_eigenvalues, None
    if job.deflated and left is not None and left.vectors is not None and left.products is not None:
        basis = left.vectors, left.products
    return trace_steps(job.H, basis=basis, **job.options("trace"))


def _gap_steps(job: Sections) -> Steps[GapDraws]:
    options = job.options("gap")
    return gap_steps(job.H, sigmas=options.pop("sigma"), **options)


def _density_steps(job: Sections) -> Steps[DensityResult]:
    left = job.left_by_eigenvalues
    started = None if left is None else left.started
    return density_steps(job.H, memory=job.settings.memory, started=started, **job.options("density"))


_STEPS: dict[str, Callable[[Sections], Steps[Any]]] = {
    "eigenvalues": _eigenvalue_steps,
    "trace": _trace_steps,
    "gap": _gap_steps,
    "density": _density_steps,
}
_ROUNDS = (("eigenvalues", "trace", "gap"), ("density",))
"""What shares its passes over the data; what comes later has something of what came before."""
_DEFLATED_ROUNDS = (("eigenvalues", "gap"), ("trace", "density"))
