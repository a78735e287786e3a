"""Lanczos for both ends of a spectrum: when to restart, when to look in a fresh direction, when to stop."""

from __future__ import annotations

import math

import numpy as np

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.estimators.krylov import KrylovBasis
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.room import Room
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.unseen import Sequence
from hessdiag.estimators.wanted import Found, Wanted
from hessdiag.results import EigenvalueBounds

__all__ = ["krylov_starts", "lanczos_steps"]

_LEAST_SPARE = 4  # vectors beside the wanted ones without which no basis can be restarted
_CONFIDENCE = 0.99  # of the bounds that are reported
_DOUBT = 1e-3  # that the steps on a fresh direction miss an eigenvalue
_LEAST_PATIENCE = 5  # steps on a fresh direction
_MOST_PATIENCE = 4  # times that of the first direction, which may have been restarted itself
_LOOK_ALWAYS = 32  # up to this size of the basis; then every 4 %, as looking costs its cube


def krylov_starts(H: SymmetricOperator, seed: int) -> Probes:
    """The Gaussian start vectors of Krylov sequences."""
    return Probes(H.n, seed=seed, stream=Stream.KRYLOV, distribution="gaussian", device=H.device, dtype=H.dtype)


def lanczos_steps(
    H: SymmetricOperator, wanted: Wanted, *, budget: int, seed: int, memory: int | None = None
) -> Steps[Found]:
    """Approximate eigenvectors of both ends from one Krylov basis.

    Args:
        H: the operator, order n.
        wanted: how many from each end.
        budget: products allowed.
        seed: of the start vectors.
        memory: bytes for the vectors stored; default: half of what is free. A basis that would need more is shrunk
            to the Ritz vectors at both ends (thick restart) and grows on from there.

    Returns:
        What was found, with bounds on the whole spectrum that hold with a confidence of 99 %.

    Raises:
        UsageError: ``memory`` does not hold the smallest basis.
        MeasurementError: the free memory does not.
    """
    room = _room(H, wanted, memory)
    starts, first = krylov_starts(H, seed), None
    basis, search = KrylovBasis(H.n, H.dtype, H.device), _Search(wanted, H.n)
    spent = restarts = 0
    while not search.done and spent < budget:
        if basis.exhausted or search.wants_fresh_start:
            restarts += _made_room(basis, wanted, room, 1 + search.patience)
            basis.start(starts(search.directions))
            first = first or basis.sequence
            search.begins()
        if _made_room(basis, wanted, room, 1):
            restarts += 1
            search.cycle = room - basis.size - basis.waiting
        candidate = basis.candidate()
        ahead = min(search.forecast(), budget - spent) + wanted.count
        try:
            product = yield Products(candidate[:, None], expect=ahead, vital=spent < wanted.count)
        except OutOfTime:
            basis.withdraw()
            break
        spent += 1
        basis.absorb(product[:, 0])
        search.look(basis)
    ritz, places = basis.ritz(), wanted.places(basis.size)
    complete, bounds = search.done or basis.size == H.n, _bounds(basis, first)
    started = None
    if restarts:  # memory holds no more than the basis: what is found takes its place
        basis.shrink(ritz, places)
        vectors = basis.vectors.T
    else:
        vectors = basis.expand(ritz.coordinates[:, places])
        if basis.sequence is not None and first is not None:
            basis.cut_back(len(first.alphas))
            started = basis
    return Found(vectors, spent, complete, float(np.abs(ritz.values).max()), bounds, restarts, started)


def _room(H: SymmetricOperator, wanted: Wanted, memory: int | None) -> int:
    """Vectors that may be stored."""
    room = Room(H, memory)
    room.demand(min(wanted.count + _LEAST_SPARE, H.n + 1), f"ask for fewer than {wanted.count} eigenvalues")
    return room.vectors


def _made_room(basis: KrylovBasis, wanted: Wanted, room: int, steps: int) -> bool:
    """Restart the basis if it has no room for ``steps`` more; whether it did."""
    if basis.size + basis.waiting + steps <= room or basis.size <= wanted.count:
        return False
    while basis.waiting > 1 and room - basis.waiting < wanted.count + 2:
        basis.forget()
    spare = room - basis.waiting - wanted.count
    # The Ritz vectors next to the wanted ones are what a restart would find anew: half of what is spare.
    kept = wanted.with_neighbours(max(min(spare // 2, spare - steps), 0))
    if kept.count >= basis.size:
        return False
    basis.shrink(basis.ritz(), kept.places(basis.size))
    return True


class _Search:
    """Decides when Lanczos may stop: all wanted pairs converged, and it is unlikely that others belong in their place.

    A small residual says that a value is an eigenvalue, not that it is the largest, nor that it stands alone: a
    second copy, or a close neighbour, is invisible to the direction that found the first. So, unless the first
    direction tells enough, the search goes on in fresh random ones. It is over when what a direction has met bounds
    what it has not met to less than the wanted values (:class:`Sequence`). Where an end of the spectrum is dense
    that bound is slow; there it is over when the fresh direction has had as many steps as the wanted values at that
    end took to come to light (more, where restarts slow it down), and has not changed them.
    """

    def __init__(self, wanted: Wanted, n: int) -> None:
        self.wanted, self.n = wanted, n
        self.directions = 0
        self.wants_fresh_start = False
        self.done = False
        self.cycle = 1  # steps between restarts
        self._patience = np.full(wanted.count, _LEAST_PATIENCE)  # with each wanted value
        self._settled: np.ndarray | None = None  # the wanted values when the last fresh direction came in
        self._seen: list[tuple[int, np.ndarray]] = []  # the wanted values after steps of the present direction
        self._steps = 0
        self._steps_on_direction = 0
        self._looked = 0
        self._first_excess = math.nan
        self._excess = math.inf

    def begins(self) -> None:
        """A direction comes in."""
        self.directions += 1
        self.wants_fresh_start = False
        self._steps_on_direction = 0
        self._seen.clear()

    def look(self, basis: KrylovBasis) -> None:
        """Take in the Ritz values after one more step."""
        self._steps += 1
        self._steps_on_direction += 1
        due = basis.size <= _LOOK_ALWAYS or basis.exhausted or self._steps - self._looked >= basis.size // 25
        if basis.size < self.wanted.count or not (due or basis.size == self.n):
            return
        self._looked = self._steps
        ritz, places = basis.ritz(), self.wanted.places(basis.size)
        tolerance = self.wanted.rtol * float(np.abs(ritz.values).max())
        values, worst = ritz.values[places], float(ritz.residuals[places].max())
        self._seen.append((self._steps_on_direction, values))
        self._record_excess(worst, tolerance)
        if basis.size == self.n:
            self.done = True
        elif worst <= tolerance:
            self._weigh(basis, values, tolerance)

    def _weigh(self, basis: KrylovBasis, values: np.ndarray, tolerance: float) -> None:
        """All wanted pairs have converged: stop, go on, or come from elsewhere."""
        ends = self._open_ends(basis, values, tolerance)
        if not ends:
            self.done = True
        elif self._settled is None or any(_moved(values, self._settled, tolerance)[end].any() for end in ends):
            self._patience = np.maximum(self._patience, self._steps_to(values, tolerance))
            self._settled = values
            self.wants_fresh_start = True
        else:
            enough = max(int(self._patience[end].max()) for end in ends)
            if basis.sequence is None:  # N steps, restarted after p each, converge like sqrt(p N) unbroken ones
                enough = min(max(enough, self.patience**2 // self.cycle), _MOST_PATIENCE * self.patience)
            self.done = basis.exhausted or self._steps_on_direction >= enough

    @property
    def patience(self) -> int:
        """Steps that a fresh direction may need."""
        return int(self._patience.max())

    def _open_ends(self, basis: KrylovBasis, values: np.ndarray, tolerance: float) -> list[slice]:
        """The ends beyond whose Ritz values, counted with multiplicity, eigenvalues may well lie."""
        top, bottom = self.wanted.top, self.wanted.bottom
        doubt = _DOUBT / ((top > 0) + (bottom > 0))
        ends = []
        if bottom and np.any(_floor(basis, doubt)[:bottom] < values[:bottom] - tolerance):
            ends.append(slice(0, bottom))
        if top and np.any(_ceiling(basis, doubt)[-top:] > values[bottom:] + tolerance):
            ends.append(slice(bottom, None))
        return ends

    def _steps_to(self, values: np.ndarray, tolerance: float) -> np.ndarray:
        """How many steps this direction took to come to each of these values and stay."""
        arrived = np.full(len(values), self._steps_on_direction)
        stayed = np.full(len(values), True)
        for step, seen in reversed(self._seen):
            stayed &= ~_moved(seen, values, tolerance)
            arrived[stayed] = step
        return arrived

    def _record_excess(self, worst: float, tolerance: float) -> None:
        self._excess = worst / tolerance if tolerance > 0 else 0.0
        if math.isnan(self._first_excess):
            self._first_excess = max(self._excess, 1.0)

    def forecast(self) -> float:
        """Steps still needed, if the residual goes on falling as it did."""
        if self._settled is not None:
            return max(self.patience - self._steps_on_direction, 0)
        if not self._excess < self._first_excess or self._excess <= 1:
            return self._steps + self.patience
        rate = math.log(self._first_excess / self._excess) / self._steps
        return math.log(self._excess) / rate + self.patience


def _moved(values: np.ndarray, before: np.ndarray, tolerance: float) -> np.ndarray:
    moved: np.ndarray = np.abs(values - before) > tolerance / 2
    return moved


def _ceiling(basis: KrylovBasis, doubt: float) -> np.ndarray:
    """Ascending, what the largest eigenvalues of H do not exceed, except with probability ``doubt``."""
    if basis.sequence is None or not basis.sequence.alphas:
        return np.full(basis.size, np.inf)
    outside = basis.sequence.upper(doubt)
    ceiling: np.ndarray = np.maximum(basis.bordered(outside), outside)
    return ceiling


def _floor(basis: KrylovBasis, doubt: float) -> np.ndarray:
    """Ascending, what the smallest eigenvalues of H do not fall below, except with probability ``doubt``."""
    if basis.sequence is None or not basis.sequence.alphas:
        return np.full(basis.size, -np.inf)
    outside = basis.sequence.lower(doubt)
    floor: np.ndarray = np.minimum(basis.bordered(outside), outside)
    return floor


def _bounds(basis: KrylovBasis, first: Sequence | None) -> EigenvalueBounds | None:
    """Bounds on the whole spectrum: the better of what the first direction says and what basis and last one say."""
    if first is None:
        return None
    doubt = (1 - _CONFIDENCE) / 4  # of either end, by either way
    lower = max(first.lower(doubt), float(_floor(basis, doubt)[0]))
    upper = min(first.upper(doubt), float(_ceiling(basis, doubt)[-1]))
    return EigenvalueBounds(lower, upper, _CONFIDENCE)
