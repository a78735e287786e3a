"""The spectral density of the Hessian by stochastic Lanczos quadrature."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from hessdiag.cost import Cost
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.errors import UsageError
from hessdiag.estimators.krylov import KrylovBasis
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import OutOfTime, Steps, run
from hessdiag.results import DensityResult

__all__ = ["density_steps", "spectral_density"]

_RELATIVE_BANDWIDTH = 0.01  # of the spectrum's span
_ROUNDING = 1e-5  # relative; a narrower span is none
_MARGIN = 5  # bandwidths beyond the outermost node


def spectral_density(
    H: SymmetricOperator,
    *,
    steps: int = 80,
    probes: int = 4,
    points: int = 256,
    seed: int = 0,
    starts: Probes | None = None,
) -> DensityResult:
    """phi(t) = (1/n) sum_i delta(t - lambda_i), smoothed by a Gaussian of 1 % of the spectrum's span.

    From each of ``probes`` random unit vectors v, ``steps`` Lanczos steps with full reorthogonalisation give a
    tridiagonal T whose eigenvalues theta_k are the nodes, and whose eigenvectors' squared first entries are the
    weights, of the Gauss quadrature for v^T f(H) v; their mean over probes estimates (1/n) Tr f(H). Outliers
    come out as single nodes, the bulk as a shape. All probes take each step together: ``steps`` passes over
    the data carry ``steps * probes`` products.

    Choose it to see the whole spectrum; for single extreme eigenvalues use :func:`eigenvalues`.

    Args:
        H: the operator, order n.
        steps: Lanczos steps for each probe; memory: steps * probes vectors.
        probes: start vectors.
        points: of the grid.
        seed: of the start vectors.
        starts: other start vectors than those of ``seed`` (drawn on another device, say).

    Returns:
        The density on a grid, and the nodes and weights it was drawn from.

    Raises:
        UsageError: fewer than 1 probe, 2 steps or 2 points.

    Source: Ubaru, Chen, Saad 2017; Ghorbani, Krishnan, Xiao, arXiv 1901.10159; Chen, arXiv 2105.06595.
    """
    return run(H, density_steps(H, steps=steps, probes=probes, points=points, seed=seed, starts=starts))


def density_steps(
    H: SymmetricOperator,
    *,
    steps: int = 80,
    probes: int = 4,
    points: int = 256,
    seed: int = 0,
    starts: Probes | None = None,
) -> Steps[DensityResult]:
    """:func:`spectral_density` as steps, to run beside other estimators."""
    if steps < 2 or probes < 1 or points < 2:
        raise UsageError(f"found {steps} steps, {probes} probes, {points} points; expected at least 2, 1 and 2 of them")
    draw = starts or Probes(
        H.n, seed=seed, stream=Stream.DENSITY, distribution="gaussian", device=H.device, dtype=H.dtype
    )
    bases = yield from _grown_bases(H, min(steps, H.n), probes, draw)
    nodes, weights = map(np.concatenate, zip(*map(_quadrature, bases), strict=True))
    weights = weights / len(bases)
    order = np.argsort(nodes)
    nodes, weights = nodes[order], weights[order]
    grid, density, bandwidth = _smoothed(nodes, weights, points)
    return DensityResult(
        grid=tuple(grid.tolist()),
        density=tuple(density.tolist()),
        steps=max(basis.size for basis in bases),
        probes=probes,
        bandwidth=bandwidth,
        nodes=tuple(nodes.tolist()),
        weights=tuple(weights.tolist()),
        seed=seed,
        cost=Cost(),
    )


def _grown_bases(H: SymmetricOperator, steps: int, probes: int, draw: Probes) -> Steps[list[KrylovBasis]]:
    bases = [KrylovBasis(H.n, H.dtype, H.device) for _ in range(probes)]
    for number, basis in enumerate(bases):
        basis.start(draw(number).to(H.device, H.dtype))
    for step in range(steps):
        growing = [basis for basis in bases if not basis.exhausted]
        if not growing:
            break
        candidates = torch.stack([basis.candidate() for basis in growing], 1)
        try:
            products = yield Products(candidates, expect=(steps - step - 1) * len(growing), vital=step < 2)
        except OutOfTime:
            for basis in growing:
                basis.withdraw()
            break
        for basis, product in zip(growing, products.T, strict=True):
            basis.absorb(product.contiguous())
    return bases


def _quadrature(basis: KrylovBasis) -> tuple[np.ndarray, np.ndarray]:
    ritz = basis.ritz()
    return ritz.values, ritz.coordinates[0] ** 2


def _smoothed(nodes: np.ndarray, weights: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray, float]:
    span, scale = float(nodes[-1] - nodes[0]), float(np.abs(nodes).max())
    if span <= _ROUNDING * scale:  # one eigenvalue, many times: a grid of its rounding could not be drawn
        span = scale or 1.0
    # A bump narrower than the grid's step would fall between its points, or be counted several times.
    bandwidth = max(_RELATIVE_BANDWIDTH, 1 / (points - 1)) * span
    grid = np.linspace(nodes[0] - _MARGIN * bandwidth, nodes[-1] + _MARGIN * bandwidth, points)
    density = stats.norm.pdf(grid[:, None], nodes[None, :], bandwidth) @ weights
    return grid, density, bandwidth
