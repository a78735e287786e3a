"""The loss gained by weight noise, beside what the trace of the Hessian predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch

from hessdiag.cost import Cost
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.requests import DisplacedLosses
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import OutOfTime, Steps, run
from hessdiag.estimators.trace import trace as hessian_trace
from hessdiag.memory import chunk_size
from hessdiag.problem import Problem
from hessdiag.results import GapResult, GapRow, TraceResult
from hessdiag.spec.names import DEFAULT_SIGMAS, Distribution

__all__ = [
    "DEFAULT_SIGMAS",
    "GapDraws",
    "gap_row",
    "gap_steps",
    "gap_table",
    "mean_squared_deviation",
    "noise_gap",
]

DISTRIBUTIONS: tuple[str, ...] = get_args(Distribution)
_SIGNS = {"two-sided": (1.0, -1.0), "one-sided": (1.0,)}


def noise_gap(
    problem: Problem,
    *,
    sigmas: float | Sequence[float] = DEFAULT_SIGMAS,
    draws: int = 100,
    estimator: str = "two-sided",
    distribution: str = "gaussian",
    seed: int = 0,
    trace: TraceResult | None = None,
    noise: Probes | None = None,
) -> GapResult:
    """F(w) - f(w) with F(w) = E f(w + U), U of standard deviation sigma per weight, and sigma^2/2 Tr[H] beside it.

    Two-sided: (f(w+U) + f(w-U))/2 - f(w), free of the gradient's term; one-sided: f(w+U) - f(w), at half the
    price and with more variance, the more the smaller sigma. One U serves the whole data, and the same draws,
    scaled, serve every sigma (as in the paper's Table 2). For a quadratic loss the two-sided mean is
    sigma^2/2 Tr[H] exactly; rectifier networks gain more, from their kinks (fixtures/digits: 14 to 23 %).

    Choose two-sided unless forward passes are all you can afford.

    Args:
        problem: f, w and the data.
        sigmas: noise levels, in units of the weights.
        draws: number of U, at least 2.
        estimator: ``two-sided`` or ``one-sided``.
        distribution: ``gaussian``, ``laplace``, ``uniform`` or ``binomial``.
        seed: of the draws.
        trace: Tr[H] where it is known; measured to its defaults otherwise.
        noise: other draws than those of ``seed``.

    Returns:
        One row for each sigma; ``std`` is the spread over draws (ddof 1), ``stderr`` that of the mean.

    Raises:
        UsageError: a sigma that is not positive, too few draws, an unknown estimator or distribution.
        MeasurementError: the loss is not finite at a displaced point.

    Source: arXiv 2306.08553, section 2 and Table 2. Cost: draws * sigmas * (2 or 1) forward passes.
    """
    H = HessianOperator(problem)
    trace = trace or hessian_trace(H, seed=seed)
    steps = gap_steps(
        problem, sigmas=sigmas, draws=draws, estimator=estimator, distribution=distribution, seed=seed, noise=noise
    )
    return gap_table(run(H, steps), trace)


@dataclass(frozen=True)
class GapDraws:
    """The gap of every draw at every sigma, ``gaps`` (draws, sigmas), before it is held against a trace."""

    sigmas: tuple[float, ...]
    estimator: str
    distribution: str
    gaps: np.ndarray
    seed: int
    cost: Cost = Cost()


def gap_steps(
    problem: Problem,
    *,
    sigmas: float | Sequence[float] = DEFAULT_SIGMAS,
    draws: int = 100,
    estimator: str = "two-sided",
    distribution: str = "gaussian",
    seed: int = 0,
    noise: Probes | None = None,
) -> Steps[GapDraws]:
    """The measuring part of :func:`noise_gap` as steps, to run beside other estimators."""
    levels = (float(sigmas),) if isinstance(sigmas, (int, float)) else tuple(sigmas)
    _refuse_bad_request(levels, draws, estimator, distribution)
    widest = torch.finfo(problem.model_dtype).max
    if max(levels) > widest:
        raise UsageError(f"sigma: found {max(levels):g}, expected at most {widest:g}, the range of the weights' dtype")
    unit = noise or Probes(
        problem.n, seed=seed, stream=Stream.GAP, distribution=distribution, device=problem.device, dtype=problem.dtype
    )
    signs = _SIGNS[estimator]
    scales = [sign * sigma for sigma in levels for sign in signs]
    together = chunk_size(problem.n * 8, draws, problem.device)
    parts: list[np.ndarray] = []
    for first in range(0, draws, together):
        numbers = range(first, min(first + together, draws))
        ahead = (draws - numbers.stop) * len(scales)
        try:
            losses = yield DisplacedLosses(unit, numbers, scales, per_batch=False, expect=ahead, vital=not parts)
        except OutOfTime:
            break
        gains = (losses.displaced.sum(2) - losses.at_weights.sum()).numpy()
        parts.append(gains.reshape(len(numbers), len(levels), len(signs)).mean(2))
    gaps = np.concatenate(parts)
    for sigma, column in zip(levels, gaps.T, strict=True):
        if not np.isfinite(column).all():
            raise MeasurementError(
                f"gap: the loss is not finite at noise sigma {sigma:g}, expected a finite loss: lower sigma"
            )
    return GapDraws(levels, estimator, distribution, gaps, seed)


def gap_table(drawn: GapDraws, trace: TraceResult) -> GapResult:
    """The draws beside what the trace predicts."""
    rows = tuple(gap_row(sigma, column, trace) for sigma, column in zip(drawn.sigmas, drawn.gaps.T, strict=True))
    return GapResult(
        distribution=drawn.distribution,
        estimator=drawn.estimator,
        noise="shared",
        draws=len(drawn.gaps),
        rss=mean_squared_deviation([row.relative_deviation for row in rows]),
        rows=rows,
        seed=drawn.seed,
        cost=drawn.cost,
    )


def gap_row(sigma: float, gaps: np.ndarray, trace: TraceResult) -> GapRow:
    """One row of the table from the gaps of all draws (draws,) at one sigma."""
    gap, std = float(gaps.mean()), float(gaps.std(ddof=1))
    stderr = std / math.sqrt(len(gaps))
    predicted, predicted_stderr = sigma**2 / 2 * trace.value, sigma**2 / 2 * trace.stderr
    deviation = deviation_stderr = None
    if predicted != 0:
        deviation = (gap - predicted) / predicted
        deviation_stderr = math.hypot(stderr / predicted, gap * predicted_stderr / predicted**2)
    return GapRow(sigma, gap, std, stderr, predicted, predicted_stderr, deviation, deviation_stderr)


def mean_squared_deviation(deviations: Sequence[float | None]) -> float | None:
    """RSS: the mean over rows of ((gap - predicted) / predicted)^2, as in the paper's Table 2."""
    if any(deviation is None for deviation in deviations):
        return None
    return float(np.mean([deviation**2 for deviation in deviations if deviation is not None]))


def _refuse_bad_request(sigmas: Sequence[float], draws: int, estimator: str, distribution: str) -> None:
    if not sigmas or not all(sigma > 0 and math.isfinite(sigma) for sigma in sigmas):
        raise UsageError(f"sigma: found {list(sigmas)}, expected one or more positive numbers")
    if draws < 2:
        raise UsageError(f"draws: found {draws}, expected at least 2: one draw has no standard error")
    if estimator not in _SIGNS:
        raise UsageError(f"estimator: found {estimator!r}, expected one of {', '.join(_SIGNS)}")
    if distribution not in DISTRIBUTIONS:
        raise UsageError(f"distribution: found {distribution!r}, expected one of {', '.join(DISTRIBUTIONS)}")
