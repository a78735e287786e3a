"""Deflated Hutchinson: exact on vectors that are known, probes for the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.estimators.intervals import FIRST_LOOK
from hessdiag.estimators.known_subspace import KnownSubspace
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.sampling import Sampling
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.results import TraceResult

__all__ = ["deflated_result", "deflated_steps"]

_STEPS = 24  # of Lanczos: they find the outliers of trained networks


def deflated_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """Tr[H] = Tr[Q^T H Q] + Tr[PHP], P = I - QQ^T: the first exact, the second from probes Pv.

    Q spans the goal's basis, as the eigenvalues left it (its products are known and cost nothing), or 24 Lanczos
    vectors from a random start. A fresh v for every batch; the interval is Hutchinson's, of forms from which the
    outliers are gone.

    Choose it where a few outliers carry the variance, most of all where their vectors are at hand.
    Cost: a product for each probe, of which the tail's ||PHP||_F decides how many, and 24 where there is no basis.

    Source: Chen, Hallman 2022 (arXiv 2205.01736); Gambhir, Stathopoulos, Orginos 2017 (SIAM J. Sci. Comput. 39, A532).
    """
    if goal.basis is not None:
        known, spent = KnownSubspace.of(H, *goal.basis), 0
    else:
        known = KnownSubspace(H)
        most = KnownSubspace.most(H, min(_STEPS, goal.max_matvecs // 2, H.n))
        yield from _lanczos(H, goal, known, most)
        spent = known.size
    sampling = Sampling(H, goal, known=known, maximum=goal.max_matvecs - spent)
    return (yield from deflated_result(H, goal, sampling, spent=spent))


def deflated_result(
    H: SymmetricOperator, goal: TraceGoal, sampling: Sampling, *, spent: int, reason: str = ""
) -> Steps[TraceResult]:
    """Gather the probes outside the vectors, and make the record; ``spent``: products beside them."""
    traced = yield from sampling.steps()
    probes = sampling.probes
    return goal.result(H, traced, method="deflated", probes=probes, matvecs=spent + probes, reason=reason)


def _lanczos(H: SymmetricOperator, goal: TraceGoal, known: KnownSubspace, steps: int) -> Steps[None]:
    """Fill ``known`` with a Krylov sequence; every vector is kept orthogonal to all before it."""
    starts = Probes(H.n, seed=goal.seed, stream=Stream.SKETCH, distribution="gaussian", device=H.device, dtype=H.dtype)
    v = _unit(starts(0))
    for left in range(steps, 0, -1):
        try:
            product = (yield Products(v.T, vital=not known.size, expect=left + FIRST_LOOK)).T
        except OutOfTime:
            return
        known.append(v, product)
        v = known.new_directions(product)
        if not len(v):  # an invariant subspace
            return


def _unit(v: Tensor) -> Tensor:
    unit: Tensor = (v / torch.linalg.vector_norm(v))[None]
    return unit
