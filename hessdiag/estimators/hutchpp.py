"""Hutch++: a sketch of the range as large as pays, probes for the rest."""

from __future__ import annotations

import math

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.estimators.intervals import FIRST_LOOK
from hessdiag.estimators.sampling import Sampling
from hessdiag.estimators.sketch import LEAST_TESTS, Sketch
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.estimators.xtrace import sketch_result, sketch_traced
from hessdiag.results import TraceResult

__all__ = ["PILOT", "SketchAndProbes", "hutchpp_steps"]

PILOT = 8  # probes
_FORESEEN = 100  # test vectors


def hutchpp_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """Tr[H] = Tr[Q^T H Q] + Tr[PHP], P = I - QQ^T, Q a basis of the range of H Omega: probes for the second alone.

    The sketch grows, at two products for a vector of Q, for as long as it saves more probes than it costs: how fast
    ||PHP||_F shrinks is estimated from the sketch itself, by leaving out one test vector after another. The probes
    are fresh, also for every batch, so the interval is that of independent samples.

    Choose it where the spectrum decays and there are many batches: against XTrace it has the simpler interval, and
    fresh probes for every batch.
    Cost: to 1 % of a trained network's trace 30 to 100 products; memory for two vectors for each one of Q.

    Source: Meyer, Musco, Musco, Woodruff 2021 (arXiv 2010.09649); growing as it pays: Persson, Cortinovis,
    Kressner 2022 (arXiv 2109.10659).
    """
    both = SketchAndProbes(H, goal, goal.max_matvecs)
    yield from both.begin()
    while both.pays():
        yield from both.grow()
    return (yield from both.finish())


class SketchAndProbes:
    """A sketch that grows while that pays, and probes outside it.

    Args:
        H: the operator.
        goal: how well.
        budget: products for both, at least 4.
        before: products spent before these, for the record.
        vital: whether its first products are served when the time is up; without it they raise OutOfTime.
    """

    def __init__(
        self, H: SymmetricOperator, goal: TraceGoal, budget: int, *, before: int = 0, vital: bool = True
    ) -> None:
        self._H, self._goal, self._budget, self._before = H, goal, budget, before
        self._vital = vital
        self.sketch = Sketch(H, goal.seed)
        self._sampling: Sampling | None = None  # outside the sketch as it is; out of time: as it was
        self._abandoned = 0  # probes outside a smaller sketch
        self._advantage = 1.0  # of a fresh probe for every batch: the variance of one for all, over its own
        self._was, self._added = math.nan, 0  # ||PHP||_F^2 before the last growth, and how much that was
        self._out_of_time = False

    @property
    def spent(self) -> int:
        """Products so far."""
        return self.sketch.spent + self._abandoned + (self._sampling.probes if self._sampling else 0)

    def begin(self) -> Steps[None]:
        """The first test vectors, and the first probes outside their range."""
        yield from self.sketch_first()
        yield from self.probe_first()

    def sketch_first(self) -> Steps[None]:
        """The first test vectors."""
        self._added = max(min(self.sketch.growth(self._budget), self._budget // 3), 1)
        yield from self.sketch.grow(self._added, vital=self._vital, expect=FIRST_LOOK)
        self._was = self.sketch.matrices.frobenius

    def probe_first(self) -> Steps[None]:
        """The first probes outside the sketch, if it has an outside."""
        if self.sketch.complete:
            return
        sampling = self._new_sampling(self._vital)
        yield from sampling.pilot(PILOT)
        self._sampling = sampling
        if sampling.std > 0:
            self._advantage = 2 * self.sketch.matrices.frobenius_left / sampling.std**2

    def grow(self) -> Steps[None]:
        """More test vectors; the probes outside fewer of them are of no more use."""
        was, more = self.sketch.matrices.frobenius_left, self._next()
        try:
            yield from self.sketch.grow(more, expect=FIRST_LOOK)
        except OutOfTime:
            self._out_of_time = True
            return
        self._was, self._added = was, more
        self._abandoned, self._sampling = self.spent - self.sketch.spent, None

    def pays(self) -> bool:
        """Whether growing saves more probes than it costs products, if the tail goes on shrinking as it did."""
        more = self._next()
        if not more or self._out_of_time or self.sketch.size < LEAST_TESTS or self._met:
            return False
        # Beyond the budget there is nothing to be saved.
        needed = min(self._needed(), self._budget - self.spent)
        return needed * (1 - self._shrinking(more)) > 2 * more

    def forecast(self) -> float:
        """Products still to come, if the tail goes on shrinking as it did and the sketch grows while that pays."""
        needed = self._needed()
        return min(2 * more + needed * self._shrinking(more) for more in range(_FORESEEN))

    def _needed(self) -> float:
        """How many probes the tail takes."""
        small = self.sketch.matrices
        std = math.sqrt(2 * small.frobenius_left / self._advantage)
        return self._goal.probes_for(std, float(small.estimates.mean()))

    def _shrinking(self, more: int) -> float:
        """What share of ||PHP||_F^2 so many more test vectors leave."""
        share = min(self.sketch.matrices.frobenius_left / self._was, 1.0) if self._was > 0 else 1.0
        return float(share ** (more / self._added))

    def finish(self, reason: str = "") -> Steps[TraceResult]:
        """Probes until the goal is met, and the record."""
        if self.sketch.complete:
            traced = sketch_traced(self._H, self._goal, self.sketch)
            spent = self.spent - self.sketch.spent + self._before
            return sketch_result(self._H, self._goal, self.sketch, traced, method="hutch++", spent=spent, reason=reason)
        self._sampling = self._sampling or self._new_sampling(vital=True)
        traced = yield from self._sampling.steps()
        matvecs, probes = self.spent + self._before, self._sampling.probes
        return self._goal.result(self._H, traced, method="hutch++", probes=probes, matvecs=matvecs, reason=reason)

    @property
    def _met(self) -> bool:
        """Whether the probes that there are do."""
        if self._sampling is None:
            return self.sketch.complete
        traced = self._sampling.traced()
        return self._goal.met(traced.value, traced.interval)

    def _next(self) -> int:
        """Test vectors to add next; room for probes after them is kept."""
        return self.sketch.growth(self._budget - self.spent - FIRST_LOOK)

    def _new_sampling(self, vital: bool) -> Sampling:
        known, left = self.sketch.known, self._budget - self.spent
        return Sampling(self._H, self._goal, known=known, maximum=left, vital=vital)
