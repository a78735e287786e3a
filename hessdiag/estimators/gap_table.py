"""The draws of the noise gap held against a trace: one row for each sigma, and what the rows are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hessdiag.estimators.gap_draws import GapDraws, pooled
from hessdiag.estimators.gap_fit import gap_fit
from hessdiag.results import GapResult, GapRow, TraceResult

__all__ = ["gap_row", "gap_table", "mean_squared_deviation"]


def gap_table(drawn: GapDraws, trace: TraceResult) -> GapResult:
    """The draws beside what the trace predicts."""
    rows = tuple(gap_row(drawn, place, trace) for place in range(len(drawn.sigmas)))
    return GapResult(
        distribution=drawn.distribution,
        estimator=drawn.estimator,
        noise=drawn.noise,
        draws=len(drawn.gaps),
        rss=mean_squared_deviation([row.relative_deviation for row in rows]),
        rows=rows,
        seed=drawn.seed,
        cost=drawn.cost,
        fit=gap_fit(drawn, trace),
        search=drawn.search,
        converged=drawn.converged,
    )


def gap_row(drawn: GapDraws, place: int, trace: TraceResult) -> GapRow:
    """The row of sigma number ``place``.

    With fresh noise for each batch gap = predicted + remainder: the quadratic form, whose mean is known from the
    trace, is a control variate. With one noise for all batches the gap is the mean over draws, as in the paper.
    """
    sigma, gaps = drawn.sigmas[place], drawn.gaps[:, place]
    predicted, predicted_stderr = sigma**2 / 2 * trace.value, sigma**2 / 2 * trace.stderr
    remainder = remainder_stderr = None
    remainders = drawn.remainders(place)
    if remainders is not None:
        remainder, remainder_stderr = _measured(remainders, drawn.rounding)
    if remainder is None or remainder_stderr is None or drawn.noise == "shared":
        gap, stderr = _measured(gaps, drawn.rounding)
        deviation_stderr = _ratio_stderr(stderr, predicted, gap, predicted_stderr)
    else:
        gap, stderr = predicted + remainder, math.hypot(predicted_stderr, remainder_stderr)
        deviation_stderr = _ratio_stderr(remainder_stderr, predicted, remainder, predicted_stderr)
    return GapRow(
        sigma=sigma,
        gap=gap,
        std=float(gaps.std(ddof=1)) if drawn.noise == "shared" else None,
        stderr=stderr,
        predicted=predicted,
        predicted_stderr=predicted_stderr,
        relative_deviation=None if predicted == 0 else (gap - predicted) / predicted,
        relative_deviation_stderr=deviation_stderr,
        remainder=remainder,
        remainder_stderr=remainder_stderr,
    )


def mean_squared_deviation(deviations: Sequence[float | None]) -> float | None:
    """RSS: the mean over rows of ((gap - predicted) / predicted)^2, as in the paper's Table 2."""
    if any(deviation is None for deviation in deviations):
        return None
    return float(np.mean([deviation**2 for deviation in deviations if deviation is not None]))


def _measured(values: np.ndarray, rounding: float) -> tuple[float, float]:
    mean, stderr, _ = pooled(values)
    return mean, math.hypot(stderr, rounding)


def _ratio_stderr(stderr: float, predicted: float, value: float, predicted_stderr: float) -> float | None:
    """The standard error of value/predicted, whose errors are independent."""
    if predicted == 0:
        return None
    return math.hypot(stderr / predicted, value * predicted_stderr / predicted**2)
