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
from hessdiag.estimators.room import Room
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
    memory: int | None = None,
) -> DensityResult:
    """phi(t) = (1/n) sum_i delta(t - lambda_i), smoothed by a Gaussian of 1 % of the spectrum's span.

    From each of ``probes`` random unit vectors v, ``steps`` Lanczos steps with full reorthogonalisation give a
    tridiagonal T whose eigenvalues theta_k are the nodes, and whose eigenvectors' squared first entries are the
    weights, of the Gauss quadrature for v^T f(H) v; their mean over probes estimates (1/n) Tr f(H). Outliers
    come out as single nodes, the bulk as a shape. As many probes as memory holds take each step together: all of
    them, ``steps`` passes over the data carry ``steps * probes`` products.

    Choose it to see the whole spectrum; for single extreme eigenvalues use :func:`eigenvalues`.

    Args:
        H: the operator, order n.
        steps: Lanczos steps for each probe; memory: steps * probes vectors.
        probes: start vectors.
        points: of the grid.
        seed: of the start vectors.
        starts: other start vectors than those of ``seed`` (drawn on another device, say).
        memory: bytes for the vectors that are stored; default: half of what is free on the vectors' device.

    Returns:
        The density on a grid, and the nodes and weights it was drawn from.

    Raises:
        UsageError: fewer than 1 probe, 2 steps or 2 points, or a ``memory`` that does not hold one probe's steps.
        MeasurementError: the free memory does not hold them.

    Source: Ubaru, Chen, Saad 2017; Ghorbani, Krishnan, Xiao, arXiv 1901.10159; Chen, arXiv 2105.06595.
    """
    return run(H, density_steps(H, steps=steps, probes=probes, points=points, seed=seed, starts=starts, memory=memory))


def density_steps(
    H: SymmetricOperator,
    *,
    steps: int = 80,
    probes: int = 4,
    points: int = 256,
    seed: int = 0,
    starts: Probes | None = None,
    memory: int | None = None,
    started: KrylovBasis | None = None,
) -> Steps[DensityResult]:
    """:func:`spectral_density` as steps, to run beside other estimators.

    ``started``: the first sequence of :func:`eigenvalues` with the same seed. It began as the first probe does, which
    goes on from there.
    """
    if steps < 2 or probes < 1 or points < 2:
        raise UsageError(f"found {steps} steps, {probes} probes, {points} points; expected at least 2, 1 and 2 of them")
    steps = min(steps, H.n)
    together = _probes_in_memory(H, steps, memory)
    rules: list[_Rule] = []
    for first in range(0, probes, together):
        numbers = range(first, min(first + together, probes))
        bases = [_started(H, number, seed, starts, started if number == 0 else None, steps) for number in numbers]
        in_time = yield from _grow(bases, steps, ahead=(probes - numbers.stop) * steps, vital=first == 0)
        if in_time or first == 0:
            rules += [_quadrature(basis) for basis in bases]
        if not in_time:
            break
    nodes, weights = map(np.concatenate, zip(*rules, strict=True))
    weights = weights / len(rules)
    order = np.argsort(nodes)
    nodes, weights = nodes[order], weights[order]
    grid, density, bandwidth = _smoothed(nodes, weights, points)
    return DensityResult(
        grid=tuple(grid.tolist()),
        density=tuple(density.tolist()),
        steps=max(len(rule[0]) for rule in rules),
        probes=len(rules),
        bandwidth=bandwidth,
        nodes=tuple(nodes.tolist()),
        weights=tuple(weights.tolist()),
        seed=seed,
        cost=Cost(),
    )


_Rule = tuple[np.ndarray, np.ndarray]
"""Nodes and weights of one probe's Gauss quadrature."""


def _probes_in_memory(H: SymmetricOperator, steps: int, memory: int | None) -> int:
    """How many probes may be under way at a time: each stores a vector a step, and the one that is next."""
    room = Room(H, memory)
    fits = room.vectors - 1
    advice = f"lower density.steps from {steps} to at most {fits}" if fits >= 2 else "select fewer parameters"
    room.demand(steps + 1, advice)
    return room.vectors // (steps + 1)


def _started(
    H: SymmetricOperator, number: int, seed: int, starts: Probes | None, started: KrylovBasis | None, steps: int
) -> KrylovBasis:
    """A probe's basis, not yet grown."""
    if started is not None:
        started.cut_back(min(steps, started.size))
        return started
    basis = KrylovBasis(H.n, H.dtype, H.device)
    basis.start((starts or _starts(H, seed, number))(number).to(H.device, H.dtype))
    return basis


def _starts(H: SymmetricOperator, seed: int, number: int) -> Probes:
    """The first probe is the eigenvalues' first start, whether they are measured or not."""
    stream = Stream.KRYLOV if number == 0 else Stream.DENSITY
    return Probes(H.n, seed=seed, stream=stream, distribution="gaussian", device=H.device, dtype=H.dtype)


def _grow(bases: list[KrylovBasis], steps: int, *, ahead: int, vital: bool) -> Steps[bool]:
    """Take each basis to ``steps`` vectors or until it is exhausted; whether there was time to."""
    while growing := [basis for basis in bases if basis.size < steps and not basis.exhausted]:
        left = sum(steps - basis.size - 1 for basis in growing)
        needed = vital and min(basis.size for basis in growing) < 2
        candidates = torch.stack([basis.candidate() for basis in growing], 1)
        try:
            products = yield Products(candidates, expect=left + ahead, vital=needed)
        except OutOfTime:
            for basis in growing:
                basis.withdraw()
            return False
        for basis, product in zip(growing, products.T, strict=True):
            basis.absorb(product.contiguous())
    return True


def _quadrature(basis: KrylovBasis) -> _Rule:
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
