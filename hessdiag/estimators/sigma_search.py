"""The largest noise at which the loss gained is what the trace predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from hessdiag.estimators.gap_draws import FEWEST_DRAWS, GapSample, pooled
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.results import SigmaSearch

__all__ = ["FIRST_DRAWS", "TOLERANCE", "search_sigmas", "window"]

TOLERANCE = 0.03
FIRST_DRAWS = 8
_MOST_DRAWS = 32  # near the edge any number would leave it open
_OCTAVES = 20  # down to a millionth of the weights
_AT_ONCE = 4  # octaves in one pass
_RUN = 3  # octaves that must hold together
_HALVINGS = 3  # of the last octave: to 9 %
_ABOVE_ROUNDING = 10
_CONFIDENCE = 0.95


def search_sigmas(sample: GapSample, *, largest: float, draws: int) -> Steps[SigmaSearch]:
    """Find the largest sigma at which |gap - predicted| is at most 3 % of what is predicted.

    Octaves are tried from ``largest`` downwards, with the same noise at all of them. A sigma holds when the upper
    end of the 95 % interval of its deviation (remainder over quadratic form, both of the same draws) is below the
    tolerance; one that 8 draws leave open is given up to 32. The first octave that holds together with the two below
    it is narrowed to 9 %.

    What is guaranteed: it holds at the sigma returned and at the two octaves tried under it, and not at the next
    tried sigma above. The deviation need not grow with sigma: an isolated crossing between a gain and a loss is not
    taken for agreement, and what lies between two sigmas that were tried is not known.

    Args:
        sample: of two-sided draws.
        largest: where to begin, the root mean square of the weights.
        draws: the most, where fewer than 32 are allowed.

    Returns:
        ``largest`` None with ``converged``: there is none down to where the loss's rounding, or a millionth of the
        weights, ends the search.

    Cost: one product for each draw, and two forward passes for each draw and sigma tried: 8 draws at some 10 sigmas.
    """
    search = _Search(sample, draws)
    try:
        found = yield from search.coarsely(largest)
        if found is not None:
            found = yield from search.narrowed(found)
    except OutOfTime:
        return search.result(search.holding(), finished=False)
    return search.result(found, finished=True)


def window(largest: float) -> tuple[float, ...]:
    """Five sigmas from a quarter of ``largest`` up to it, to show what the gap is made of there."""
    return (*(_rounded(largest / 2 ** (k / 2)) for k in range(4, 0, -1)), largest)


class _Search:
    """What was tried, and whether it held: yes, no, or open."""

    def __init__(self, sample: GapSample, draws: int) -> None:
        self.sample, self.draws = sample, min(draws, _MOST_DRAWS)
        self.octaves: list[float] = []
        self.verdicts: dict[float, bool | None] = {}

    def coarsely(self, largest: float) -> Steps[float | None]:
        """The first octave from above that holds with those below it."""
        for first in range(0, _OCTAVES, _AT_ONCE):
            octaves = [_rounded(largest / 2**k) for k in range(first, first + _AT_ONCE)]
            seen = [sigma for sigma in octaves if not first or self._above_rounding(sigma)]
            self.octaves += seen
            yield from self._judge(seen)
            found = self.holding()
            if found is not None or len(seen) < len(octaves):
                return found
        return None

    def holding(self) -> float | None:
        """The largest octave of a run that holds."""
        for place in range(len(self.octaves) - _RUN + 1):
            run = self.octaves[place : place + _RUN]
            if all(self.verdicts.get(sigma) for sigma in run):
                return run[0]
        return None

    def narrowed(self, low: float) -> Steps[float]:
        """Halve the octave above ``low``, on a logarithmic scale."""
        above = [sigma for sigma in self.octaves if sigma > low]
        if not above:
            return low
        high = min(above)
        for _ in range(_HALVINGS):
            middle = _rounded(math.sqrt(low * high))
            yield from self._judge([middle])
            low, high = (middle, high) if self.verdicts[middle] else (low, middle)
        return low

    def result(self, found: float | None, *, finished: bool) -> SigmaSearch:
        """The record; with something still open it was not shown that there is none."""
        converged = finished and (found is not None or None not in self.verdicts.values())
        return SigmaSearch(TOLERANCE, found, (min(self.verdicts), max(self.verdicts)), converged)

    def _judge(self, sigmas: Sequence[float]) -> Steps[None]:
        """Take draws until each of them is decided, or ``draws`` are taken."""
        unsettled, count = list(sigmas), min(FIRST_DRAWS, self.draws)
        while unsettled:
            try:
                yield from self.sample.take(unsettled, count)
            finally:
                self.verdicts |= {sigma: self._verdict(sigma) for sigma in unsettled}
            if count >= self.draws:
                return
            unsettled = [sigma for sigma in unsettled if self.verdicts[sigma] is None]
            count = min(2 * count, self.draws)

    def _verdict(self, sigma: float) -> bool | None:
        if self.sample.taken([sigma]) < FEWEST_DRAWS:
            return None
        remainders = self.sample.remainders(sigma)
        if not np.isfinite(remainders).all():
            return False
        halves = sigma**2 / 2 * self.sample.forms[: len(remainders)]
        predicted = float(halves.sum(1).mean())
        if predicted == 0:
            return None
        deviation = float(remainders.sum(1).mean()) / predicted
        # A ratio's error is that of its numerator less its value times the denominator.
        _, stderr, degrees = pooled(remainders - deviation * halves)
        error = math.hypot(float(stats.t.ppf(0.5 + _CONFIDENCE / 2, degrees)) * stderr, self.sample.rounding)
        if abs(deviation) + error / abs(predicted) <= TOLERANCE:
            return True
        return None if abs(deviation) - error / abs(predicted) <= TOLERANCE else False

    def _above_rounding(self, sigma: float) -> bool:
        """Whether a deviation of the tolerance's size would show."""
        predicted = sigma**2 / 2 * abs(float(self.sample.forms.sum(1).mean()))
        return TOLERANCE * predicted >= _ABOVE_ROUNDING * self.sample.rounding


def _rounded(sigma: float) -> float:
    """To three digits: it stands in a table."""
    return float(f"{sigma:.3g}")
