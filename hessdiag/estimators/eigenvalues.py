"""The extreme eigenvalues, each with a residual that was measured by a further product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hessdiag.cost import Cost
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.errors import UsageError
from hessdiag.estimators.krylov import KrylovBasis
from hessdiag.estimators.lanczos import lanczos_steps
from hessdiag.estimators.power import power_steps
from hessdiag.estimators.steps import Steps, run
from hessdiag.estimators.wanted import Found, Wanted
from hessdiag.results import Eigenpair, EigenvalueBounds, EigenvaluesResult

__all__ = ["Subspace", "eigenvalue_steps", "eigenvalues"]


@dataclass
class Subspace:
    """What :func:`eigenvalue_steps` leaves to other estimators: tensors travel here, beside the result.

    ``vectors`` (n, k) orthonormal, ``products`` (n, k) H times them, ``values`` (k,) their Rayleigh quotients.
    ``started``: the first Krylov sequence, as far as it went, to be gone on with; None where memory did not hold it.
    """

    vectors: Tensor | None = None
    products: Tensor | None = None
    values: tuple[float, ...] = ()
    started: KrylovBasis | None = None


def eigenvalues(
    H: SymmetricOperator,
    *,
    top: int = 5,
    bottom: int = 1,
    method: str = "lanczos",
    rtol: float = 1e-3,
    max_matvecs: int = 500,
    seed: int = 0,
    memory: int | None = None,
) -> EigenvaluesResult:
    """The ``top`` algebraically largest and the ``bottom`` smallest eigenvalues of H.

    ``lanczos`` builds one Krylov basis with full reorthogonalisation and takes Ritz values from it, for both
    ends at once: choose it, it needs the fewest products. ``power`` iterates on shifted and deflated
    operators, H - cI with c beyond the unwanted end: it needs many more products but stores only the
    vectors that it finds. In both, each returned pair (lambda, v) is confirmed by one more product:
    lambda = v.Hv for unit v, residual ||Hv - lambda v||, and some eigenvalue of H lies within that residual.

    A small residual does not prove that no larger eigenvalue exists. Lanczos therefore goes on from a fresh
    random direction after it has converged, until what that meets makes it improbable that an eigenvalue was
    missed, a repeated one included. ``bounds`` says how far the whole spectrum may reach, with its confidence.

    The first eigenvalue of a trained network takes 8 to 12 products in all, five take 20 to 25. Where memory does
    not hold the basis it is restarted from its best vectors, for some more products; with room for hardly more than
    the wanted vectors it may stop early at an end that is dense (no bound holds there: look at ``bounds``).

    Args:
        H: the operator, order n.
        top: how many from the top.
        bottom: how many from the bottom.
        method: ``lanczos`` or ``power``.
        rtol: wanted residual, relative to the largest |eigenvalue| found, be it at the wanted end or not.
        max_matvecs: products allowed, confirmation included.
        seed: of the start vectors.
        memory: bytes for the basis that ``lanczos`` stores; default: half of what is free on the vectors' device.

    Returns:
        ``converged`` is False, not an error, when a measured residual misses ``rtol``, or when ``max_matvecs`` (or
        the time) was used up before the search was over.

    Raises:
        UsageError: fewer than one eigenvalue asked for, more than n, ``max_matvecs`` or ``memory`` too small.
        MeasurementError: the free memory does not hold the smallest basis.

    Source: Parlett 1998, The Symmetric Eigenvalue Problem; restarts: Wu, Simon 2000; bounds: van Dorsselaer,
    Hochstenbach, van der Vorst 2000.
    """
    steps = eigenvalue_steps(
        H, top=top, bottom=bottom, method=method, rtol=rtol, max_matvecs=max_matvecs, seed=seed, memory=memory
    )
    return run(H, steps)


def eigenvalue_steps(
    H: SymmetricOperator,
    *,
    top: int = 5,
    bottom: int = 1,
    method: str = "lanczos",
    rtol: float = 1e-3,
    max_matvecs: int = 500,
    seed: int = 0,
    memory: int | None = None,
    subspace: Subspace | None = None,
) -> Steps[EigenvaluesResult]:
    """:func:`eigenvalues` as steps, to run beside other estimators; ``subspace`` is filled for those that follow."""
    wanted = Wanted(top, bottom, rtol)
    _refuse_bad_request(H.n, wanted, method, max_matvecs)
    find = _METHODS[method]
    found = yield from find(H, wanted, budget=max_matvecs - wanted.count, seed=seed, memory=memory)
    products = yield Products(found.vectors, vital=True)
    values, residuals = _rayleigh(found.vectors, products)
    scale = max(found.scale, float(np.abs(values).max()))
    pairs = sorted(
        (Eigenpair(float(value), float(residual)) for value, residual in zip(values, residuals, strict=True)),
        key=lambda pair: -pair.value,
    )
    if subspace is not None:
        subspace.vectors, subspace.products, subspace.values = found.vectors, products, tuple(values.tolist())
        subspace.started = found.started
    return EigenvaluesResult(
        method=method,
        matvecs=found.matvecs + wanted.count,
        converged=found.complete and bool(np.all(residuals <= rtol * scale)),
        rtol=rtol,
        largest=tuple(pairs[:top]),
        smallest=tuple(reversed(pairs[len(pairs) - bottom :])),
        seed=seed,
        cost=Cost(),
        bounds=_around(found.bounds, values),
        restarts=found.restarts,
    )


def _refuse_bad_request(n: int, wanted: Wanted, method: str, max_matvecs: int) -> None:
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


def _around(bounds: EigenvalueBounds | None, values: np.ndarray) -> EigenvalueBounds | None:
    """Bounds that hold what was measured, whose rounding is another."""
    if bounds is None:
        return None
    return replace(bounds, lower=min(bounds.lower, float(values.min())), upper=max(bounds.upper, float(values.max())))


_METHODS: dict[str, Callable[..., Steps[Found]]] = {"lanczos": lanczos_steps, "power": power_steps}
