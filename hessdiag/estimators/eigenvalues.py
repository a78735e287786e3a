"""The extreme eigenvalues, each with a residual that was measured by a further product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessdiag.cost import Cost
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.errors import UsageError
from hessdiag.estimators.krylov import KrylovBasis, Ritz
from hessdiag.estimators.power import power_steps
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import OutOfTime, Steps, run
from hessdiag.results import Eigenpair, EigenvaluesResult

__all__ = ["eigenvalue_steps", "eigenvalues"]

_LEAST_PATIENCE = 5  # steps on a fresh direction


def eigenvalues(
    H: SymmetricOperator,
    *,
    top: int = 5,
    bottom: int = 1,
    method: str = "lanczos",
    rtol: float = 1e-3,
    max_matvecs: int = 500,
    seed: int = 0,
) -> EigenvaluesResult:
    """The ``top`` algebraically largest and the ``bottom`` smallest eigenvalues of H.

    ``lanczos`` builds one Krylov basis with full reorthogonalisation and takes Ritz values from it, for both
    ends at once: choose it, it needs the fewest products. ``power`` iterates on shifted and deflated
    operators, H - cI with c beyond the unwanted end: it needs many more products but stores only the
    vectors that it finds. In both, each returned pair (lambda, v) is confirmed by one more product:
    lambda = v.Hv for unit v, residual ||Hv - lambda v||, and some eigenvalue of H lies within that residual.

    A small residual does not prove that no larger eigenvalue exists. Lanczos therefore goes on from a
    fresh random direction after it has converged, and is done when that changes nothing; this finds
    repeated and clustered eigenvalues.

    Args:
        H: the operator, order n.
        top: how many from the top.
        bottom: how many from the bottom.
        method: ``lanczos`` or ``power``.
        rtol: wanted residual, relative to the largest |eigenvalue| found, be it at the wanted end or not.
        max_matvecs: products allowed, confirmation included.
        seed: of the start vectors.

    Returns:
        ``converged`` is False, not an error, when a measured residual misses ``rtol``.

    Raises:
        UsageError: fewer than one eigenvalue asked for, more than n, or ``max_matvecs`` too small.
    """
    return run(
        H,
        eigenvalue_steps(H, top=top, bottom=bottom, method=method, rtol=rtol, max_matvecs=max_matvecs, seed=seed),
    )


def eigenvalue_steps(
    H: SymmetricOperator,
    *,
    top: int = 5,
    bottom: int = 1,
    method: str = "lanczos",
    rtol: float = 1e-3,
    max_matvecs: int = 500,
    seed: int = 0,
) -> Steps[EigenvaluesResult]:
    """:func:`eigenvalues` as steps, to run beside other estimators."""
    wanted = _Wanted(top, bottom, rtol)
    _refuse_bad_request(H.n, wanted, method, max_matvecs)
    find = _METHODS[method]
    vectors, matvecs, complete, scale = yield from find(H, wanted, max_matvecs - wanted.count, seed)
    products = yield Products(vectors, vital=True)
    values, residuals = _rayleigh(vectors, products)
    scale = max(scale, float(np.abs(values).max()))
    pairs = sorted(
        (Eigenpair(float(value), float(residual)) for value, residual in zip(values, residuals, strict=True)),
        key=lambda pair: -pair.value,
    )
    return EigenvaluesResult(
        method=method,
        matvecs=matvecs + wanted.count,
        converged=complete and bool(np.all(residuals <= rtol * scale)),
        rtol=rtol,
        largest=tuple(pairs[:top]),
        smallest=tuple(reversed(pairs[len(pairs) - bottom :])),
        seed=seed,
        cost=Cost(),
    )


@dataclass(frozen=True)
class _Wanted:
    """How many eigenpairs from each end, and how well."""

    top: int
    bottom: int
    rtol: float

    @property
    def count(self) -> int:
        return self.top + self.bottom

    def places(self, size: int) -> np.ndarray:
        """Where they stand among ``size`` ascending Ritz values."""
        return np.concatenate([np.arange(self.bottom), np.arange(size - self.top, size)])


def _refuse_bad_request(n: int, wanted: _Wanted, method: str, max_matvecs: int) -> None:
    if method not in _METHODS:
        raise UsageError(f"method: found {method!r}, expected one of {', '.join(_METHODS)}")
    if wanted.top < 0 or wanted.bottom < 0 or wanted.count < 1:
        raise UsageError(f"found top {wanted.top} and bottom {wanted.bottom}, expected at least one eigenvalue")
    if not wanted.rtol > 0:
        raise UsageError(f"rtol: found {wanted.rtol}, expected a positive number")
    if wanted.count > n:
        raise UsageError(
            f"found top {wanted.top} and bottom {wanted.bottom}, but {n} parameters have {n} eigenvalues: ask for fewer"
        )
    if max_matvecs < 2 * wanted.count:
        raise UsageError(
            f"max_matvecs: found {max_matvecs}, expected at least {2 * wanted.count} "
            f"(one product to find and one to confirm each of {wanted.count} eigenvalues)"
        )


def _rayleigh(vectors: Tensor, products: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rayleigh quotients and residual norms of unit columns, in float64."""
    values, residuals = [], []
    for v, hv in zip(vectors.T.double(), products.T.double(), strict=True):
        v = v / torch.linalg.vector_norm(v)
        value = v @ hv
        values.append(float(value))
        residuals.append(float(torch.linalg.vector_norm(hv - value * v)))
    return np.array(values), np.array(residuals)


_Found = tuple[Tensor, int, bool, float]
"""Unit vectors (n, top + bottom), the products spent, whether the search came to its end, and the largest
|eigenvalue| seen on the way: an end of the spectrum near zero has no other scale to be small against."""


def _lanczos(H: SymmetricOperator, wanted: _Wanted, budget: int, seed: int) -> Steps[_Found]:
    starts = Probes(H.n, seed=seed, stream=Stream.KRYLOV, distribution="gaussian", device=H.device, dtype=H.dtype)
    basis = KrylovBasis(H.n, H.dtype, H.device)
    search = _Search(wanted, H.n)
    fresh = 0
    while True:
        if basis.exhausted or search.wants_fresh_start:
            basis.start(starts(fresh))
            fresh += 1
            search.restarted()
        candidate = basis.candidate()
        ahead = min(search.forecast(), budget - basis.size) + wanted.count
        try:
            product = yield Products(candidate[:, None], expect=ahead, vital=basis.size <= wanted.count)
        except OutOfTime:
            basis.withdraw()
            break
        basis.absorb(product[:, 0])
        ritz = basis.ritz()
        search.look(ritz, basis.exhausted)
        if search.done or basis.size >= min(budget, H.n):
            break
    places = wanted.places(basis.size)
    vectors = basis.expand(ritz.coordinates[:, places])
    return vectors, basis.size, search.done or basis.size == H.n, float(np.abs(ritz.values).max())


class _Search:
    """Decides when Lanczos may stop: all wanted pairs converged, and a fresh direction changed none of them.

    A small residual says that a value is an eigenvalue, not that it is the largest, nor that it stands alone: a
    second copy, or a close neighbour, is invisible to the direction that found the first. It would show in a
    fresh direction within about as many steps as the visible ones took, so the fresh direction gets that many.
    """

    def __init__(self, wanted: _Wanted, n: int) -> None:
        self.wanted, self.n = wanted, n
        self.wants_fresh_start = False
        self.done = False
        self._settled: np.ndarray | None = None  # the wanted values when the last fresh direction came in
        self._seen: list[np.ndarray] = []  # the wanted values after each step of the present direction
        self._patience = _LEAST_PATIENCE
        self._steps = 0
        self._steps_on_direction = 0
        self._first_excess = math.nan
        self._excess = math.inf

    def restarted(self) -> None:
        self.wants_fresh_start = False
        self._steps_on_direction = 0
        self._seen.clear()

    def look(self, ritz: Ritz, exhausted: bool) -> None:
        """Take in the Ritz values after one more step; ``exhausted``: this direction has nothing more to give."""
        self._steps += 1
        self._steps_on_direction += 1
        size = len(ritz.values)
        if size < self.wanted.count:
            return
        places = self.wanted.places(size)
        tolerance = self.wanted.rtol * float(np.abs(ritz.values).max())
        values, worst = ritz.values[places], float(ritz.residuals[places].max())
        self._seen.append(values)
        self._record_excess(worst, tolerance)
        if size == self.n:
            self.done = True
        elif worst > tolerance:
            return
        elif self._settled is None or _moved(values, self._settled, tolerance):
            self._patience = max(self._patience, self._steps_to(values, tolerance))
            self._settled = values
            self.wants_fresh_start = True
        else:
            self.done = exhausted or self._steps_on_direction >= self._patience

    def _steps_to(self, values: np.ndarray, tolerance: float) -> int:
        """How many steps this direction took to come to these values and stay."""
        steps = self._steps_on_direction
        for seen in reversed(self._seen):
            if _moved(seen, values, tolerance):
                break
            steps -= 1
        return steps + 1

    def _record_excess(self, worst: float, tolerance: float) -> None:
        self._excess = worst / tolerance if tolerance > 0 else 0.0
        if math.isnan(self._first_excess):
            self._first_excess = max(self._excess, 1.0)

    def forecast(self) -> float:
        """Steps still needed, if the residual goes on falling as it did."""
        if self._settled is not None:
            return max(self._patience - self._steps_on_direction, 0)
        if not self._excess < self._first_excess or self._excess <= 1:
            return self._steps + self._patience
        rate = math.log(self._first_excess / self._excess) / self._steps
        return math.log(self._excess) / rate + self._patience


def _moved(values: np.ndarray, before: np.ndarray, tolerance: float) -> bool:
    return bool(np.any(np.abs(values - before) > tolerance / 2))


def _power(H: SymmetricOperator, wanted: _Wanted, budget: int, seed: int) -> Steps[_Found]:
    return power_steps(H, top=wanted.top, bottom=wanted.bottom, rtol=wanted.rtol, budget=budget, seed=seed)


_METHODS: dict[str, Callable[[SymmetricOperator, _Wanted, int, int], Steps[_Found]]] = {
    "lanczos": _lanczos,
    "power": _power,
}
