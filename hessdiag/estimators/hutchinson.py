"""Hutchinson's trace: the mean of quadratic forms with random vectors, a fresh one for every batch."""

from __future__ import annotations

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.estimators.sampling import Sampling
from hessdiag.estimators.steps import Steps
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.results import TraceResult

__all__ = ["hutchinson_steps"]


def hutchinson_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """Tr[H] as the mean over probes of sum_b v_b^T H_b v_b, v_b Rademacher.

    The trace of a parameter group is the mean of its share v_g^T (Hv)_g, from the same products. With one batch
    the variance of a probe is exactly 2 sum_{i != j} H_ij^2; fresh vectors for each of B batches cut it several
    times at the same cost, because the cross terms between batches vanish.

    The interval is looked at after 16, 32, 64, ... probes and at the end; it is Student's, corrected for the
    samples' skewness, at the level that makes all possible looks hold together with the goal's confidence. It is
    about 2.6 standard errors wide on each side, not 1.96: the price of stopping when it is narrow enough.

    Choose it where nothing else helps: a flat spectrum, of a loss that has no Gauss-Newton part.
    Cost: one product for each probe; to 1 % of a trained network's trace about 2,000 with one batch.

    Source: Hutchinson 1990; Girard 1989; the interval: Hall 1992, J. R. Statist. Soc. B 54, 221.
    """
    sampling = Sampling(H, goal, maximum=goal.max_matvecs)
    traced = yield from sampling.steps()
    return goal.result(H, traced, method="hutchinson", probes=sampling.probes, matvecs=sampling.probes)
