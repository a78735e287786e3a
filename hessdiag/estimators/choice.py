"""Which method to take where the loss has no Gauss-Newton part, from a pilot."""

from __future__ import annotations

from dataclasses import replace

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.estimators.deflated import deflated_result
from hessdiag.estimators.hutchpp import PILOT, SketchAndProbes
from hessdiag.estimators.known_subspace import KnownSubspace
from hessdiag.estimators.sampling import Sampling
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.estimators.xtrace import sketch_result, sketch_traced
from hessdiag.results import TraceResult

__all__ = ["fallback_steps"]

_ALLOWED = 0.1  # of what Hutchinson would spend, for trials of what may turn out to be no better
_BETTER = 0.5  # of Hutchinson's forecast: what another's must be below; both are rough
_DECAYS = 0.7  # of ||H||_F^2: what the first sketch must have left at most; a flat spectrum is seen well by this
_SKETCH_TRIAL = 24  # products: 8 test vectors, a basis of their range, and 8 probes outside it


def fallback_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """Tr[H] by the method that Hutchinson's first probes, and short trials of others, find the cheapest.

    Hutchinson begins. As soon as it has spent, or forecasts, ten times the cost of a trial there is one: probes
    outside the goal's basis (``deflated``), then a sketch, which is enough by itself where the spectrum decays fast
    (``xtrace``) or has probes for the rest (``hutch++``). What promises to need less than half of Hutchinson's
    probes is taken. Where nothing does Hutchinson goes on, at most a tenth dearer than without trials.
    """
    plain = Sampling(H, goal, maximum=goal.max_matvecs)
    trials = _Trials(H, goal, plain)
    yield from plain.look()
    while not plain.ended:
        try:
            taken = yield from trials.best()
        except OutOfTime:
            break
        if taken is not None:
            return (yield from taken)
        yield from plain.look()
    matvecs = plain.probes + trials.spent
    found = goal.result(H, plain.traced(), method="hutchinson", probes=plain.probes, matvecs=matvecs)
    untried = "few probes were enough" if found.converged else "the limits left no room to try others"
    return replace(found, reason=trials.reason or untried)


class _Trials:
    """What else there is, each tried once, when Hutchinson's forecast hides the cost.

    Args:
        H: the operator.
        goal: how well.
        plain: Hutchinson's probes.
    """

    def __init__(self, H: SymmetricOperator, goal: TraceGoal, plain: Sampling) -> None:
        self._H, self._goal, self._plain = H, goal, plain
        self._open = [(_SKETCH_TRIAL, self._sketch)]
        if goal.basis is not None:
            self._open.insert(0, (PILOT, self._known_vectors))
        self.spent = 0  # on what was not taken
        self.reason = ""

    def best(self) -> Steps[Steps[TraceResult] | None]:
        """The steps of a method to take, begun; None: nothing promises to be better, or may be tried yet."""
        taken = None
        while taken is None and self._open and self._allowed(self._open[0][0]):
            _, trial = self._open.pop(0)
            taken = yield from trial()
        return taken

    def _allowed(self, products: int) -> bool:
        affordable = min(self._plain.needed(), self._goal.max_matvecs)
        return self.spent + products <= _ALLOWED * max(affordable, self._plain.probes)

    def _known_vectors(self) -> Steps[Steps[TraceResult] | None]:
        assert self._goal.basis is not None
        known = KnownSubspace.of(self._H, *self._goal.basis)
        sampling = Sampling(self._H, self._goal, known=known, maximum=self._left, vital=False)
        yield from sampling.pilot(PILOT)
        if self._better(sampling.needed(), sampling.traced().value):
            reason = f"{known.size} known vectors carry most of the variance, {self._instead}"
            return deflated_result(self._H, self._goal, sampling, spent=self._before, reason=reason)
        self._give_up(sampling.probes, "the known vectors carry little of the variance")
        return None

    def _sketch(self) -> Steps[Steps[TraceResult] | None]:
        both = SketchAndProbes(self._H, self._goal, self._left, before=self._before, vital=False)
        try:
            yield from both.sketch_first()
            if self._enough(both):
                return self._go_on(both)
            yield from both.probe_first()
        except OutOfTime:
            self._give_up(both.spent, "")
            raise
        small = both.sketch.matrices
        decays = small.frobenius_left < _DECAYS * small.frobenius
        if decays and self._better(both.forecast(), float(small.estimates.mean())):
            return self._go_on(both)
        self._give_up(both.spent, f"the spectrum decays slowly: a sketch of {both.sketch.size} vectors saves little")
        return None

    def _give_up(self, spent: int, reason: str) -> None:
        self.spent += spent
        self.reason = reason
        self._plain.spare(spent)

    def _go_on(self, both: SketchAndProbes) -> Steps[TraceResult]:
        while not self._enough(both) and both.pays():
            yield from both.grow()
        if not self._enough(both):
            return (yield from both.finish(f"the spectrum decays, {self._instead}"))
        traced = sketch_traced(self._H, self._goal, both.sketch)
        reason = f"the spectrum decays fast, {self._instead}"
        spent = self._before + both.spent - both.sketch.spent
        return sketch_result(self._H, self._goal, both.sketch, traced, spent=spent, reason=reason)

    def _enough(self, both: SketchAndProbes) -> bool:
        traced = sketch_traced(self._H, self._goal, both.sketch)
        return self._goal.met(traced.value, traced.interval)

    def _better(self, products: float, value: float) -> bool:
        """Whether so many products are few against Hutchinson's, both held against the same value."""
        return products < _BETTER * self._goal.probes_for(self._plain.std, value)

    @property
    def _before(self) -> int:
        """Products that whatever is taken comes after."""
        return self._plain.probes + self.spent

    @property
    def _left(self) -> int:
        return self._goal.max_matvecs - self._before

    @property
    def _instead(self) -> str:
        needed = self._plain.needed()
        return f"where Hutchinson would need about {f'{needed:,.0f}' if needed < 1e6 else 'a million'} products"
