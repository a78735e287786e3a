"""Which method to take where the loss has no Gauss-Newton part, from a pilot."""

from __future__ import annotations

import math

from torch import Tensor

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.estimators.deflated import FIRST_LOOK, deflated_result
from hessdiag.estimators.hutchpp import SketchAndProbes
from hessdiag.estimators.known_subspace import KnownSubspace
from hessdiag.estimators.sampling import Sampling
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.trace_goal import Traced, TraceGoal
from hessdiag.estimators.xtrace import sketch_result, sketch_traced
from hessdiag.results import TraceResult

__all__ = ["fallback_steps"]

_ALLOWED = 0.1  # of what Hutchinson would spend, for trials of what may turn out to be no better
_BETTER = 0.5  # of Hutchinson's forecast: what another's must be below; both are rough
_DECAYS = 0.7  # of ||H||_F^2: what the first sketch must have left at most; a flat spectrum is seen well by this
_SKETCH_TRIAL = 24  # products: 8 test vectors, a basis of their range, and 8 probes outside it


def fallback_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """Tr[H] by the method that 16 Hutchinson probes, and short trials, find the cheapest.

    Where few more probes are needed Hutchinson goes on. Otherwise a tenth of what it would need may go into trials:
    probes outside the goal's basis (``deflated``), then a sketch, which is enough by itself where the spectrum
    decays fast (``xtrace``) or has probes for the rest (``hutch++``). What promises to need less than half of
    Hutchinson's probes is taken. Where nothing does Hutchinson goes on, at most a tenth dearer than without trials.
    """
    plain = Sampling(H, goal, maximum=goal.max_matvecs)
    traced = yield from plain.look()
    trials = _Trials(H, goal, plain.probes, traced)
    reason = trials.reason
    if not plain.ended(traced) and trials.allows(FIRST_LOOK):
        try:
            taken = yield from trials.best()
        except OutOfTime:
            taken = None
        if taken is not None:
            return (yield from taken)
        plain.spare(trials.spent)
        traced = yield from plain.steps()
        reason = trials.reason
    elif not plain.ended(traced):
        traced = yield from plain.steps()
    matvecs = plain.probes + trials.spent
    return goal.result(H, traced, method="hutchinson", probes=plain.probes, matvecs=matvecs, reason=reason)


class _Trials:
    """What else there is, tried at a cost that Hutchinson's hides.

    Args:
        H: the operator.
        goal: how well.
        before: probes of the pilot.
        traced: what they say.
    """

    def __init__(self, H: SymmetricOperator, goal: TraceGoal, before: int, traced: Traced) -> None:
        self._H, self._goal, self._before = H, goal, before
        self._std = traced.stderr * math.sqrt(before)
        needed = goal.probes_for(self._std, traced.value)
        self._affordable = min(needed, goal.max_matvecs)
        about = f"{needed:,.0f}" if needed < 1e6 else "over a million"
        self._instead = f"where Hutchinson would need about {about} products"
        self.spent = 0  # on what was not taken
        self.reason = f"Hutchinson needs few products, about {about}"

    def allows(self, products: int) -> bool:
        """Whether so many more may be spent."""
        return self.spent + products <= _ALLOWED * self._affordable

    def best(self) -> Steps[Steps[TraceResult] | None]:
        """The steps of the method to take, begun; None: none promises to be better."""
        taken = None
        if self._goal.basis is not None:
            taken = yield from self._known_vectors(*self._goal.basis)
        if taken is None and self.allows(_SKETCH_TRIAL):
            taken = yield from self._sketch()
        return taken

    def _known_vectors(self, vectors: Tensor, products: Tensor) -> Steps[Steps[TraceResult] | None]:
        known = KnownSubspace.of(self._H, vectors, products)
        sampling = Sampling(self._H, self._goal, known=known, maximum=self._left, first_look=FIRST_LOOK, vital=False)
        traced = yield from sampling.look()
        needed = self._goal.probes_for(traced.stderr * math.sqrt(sampling.probes), traced.value)
        if self._better(needed, traced.value):
            reason = f"{known.size} known vectors carry most of the variance, {self._instead}"
            return deflated_result(self._H, self._goal, sampling, spent=self._before + self.spent, reason=reason)
        self.spent += sampling.probes
        self.reason = "the known vectors carry little of the variance"
        return None

    def _sketch(self) -> Steps[Steps[TraceResult] | None]:
        both = SketchAndProbes(self._H, self._goal, self._left, before=self._before + self.spent, vital=False)
        try:
            yield from both.sketch_first()
            if self._enough(both):
                return self._go_on(both)
            yield from both.probe_first()
        except OutOfTime:
            self.spent += both.spent
            raise
        small = both.sketch.matrices
        decays = small.frobenius_left < _DECAYS * small.frobenius
        if decays and self._better(both.forecast(), float(small.estimates.mean())):
            return self._go_on(both)
        self.spent += both.spent
        self.reason = f"the spectrum decays slowly: a sketch of {both.sketch.size} vectors saves little"
        return None

    def _go_on(self, both: SketchAndProbes) -> Steps[TraceResult]:
        while not self._enough(both) and both.pays():
            yield from both.grow()
        if not self._enough(both):
            return (yield from both.finish(f"the spectrum decays, {self._instead}"))
        traced = sketch_traced(self._H, self._goal, both.sketch)
        reason = f"the spectrum decays fast, {self._instead}"
        spent = self._before + self.spent + both.spent - both.sketch.spent
        return sketch_result(self._H, self._goal, both.sketch, traced, spent=spent, reason=reason)

    def _enough(self, both: SketchAndProbes) -> bool:
        traced = sketch_traced(self._H, self._goal, both.sketch)
        return self._goal.met(traced.value, traced.interval)

    def _better(self, products: float, value: float) -> bool:
        """Whether so many products are few against Hutchinson's, both held against the same value."""
        return products < _BETTER * self._goal.probes_for(self._std, value)

    @property
    def _left(self) -> int:
        return self._goal.max_matvecs - self._before - self.spent
