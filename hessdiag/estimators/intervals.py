"""Confidence intervals that stay honest when the data are looked at several times on the way."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import stats

__all__ = ["look_level", "looks", "mean_interval"]

FIRST_LOOK = 16


def looks(maximum: int) -> list[int]:
    """Sample sizes at which to look: 16, 32, 64, ... and ``maximum``."""
    sizes = [FIRST_LOOK * 2**k for k in range(64) if FIRST_LOOK * 2**k < maximum]
    return [*sizes, maximum]


@cache
def look_level(count: int, confidence: float) -> float:
    """The confidence of each of ``count`` doubling looks that makes all of them hold together at ``confidence``.

    Standardised means at sample sizes m and 2m have correlation sqrt(1/2), so the looks form a stationary
    Gaussian AR(1) sequence. The bound z with P(all |Z_j| <= z) = confidence is found by carrying the
    sub-density of paths that have stayed inside through one look after another (the recursion of Armitage,
    McPherson and Rowe 1969), and 2 Phi(z) - 1 is returned: Pocock's (1977) constant boundary for doubling looks.
    """
    if count == 1:
        return confidence
    low, high = stats.norm.ppf(0.5 + confidence / 2), stats.norm.ppf(1 - (1 - confidence) / (2 * count))
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _stay_inside(count, middle) < confidence else (low, middle)
    return float(2 * stats.norm.cdf(high) - 1)


def _stay_inside(count: int, z: float) -> float:
    """P(|Z_1| <= z, ..., |Z_count| <= z) for the AR(1) sequence with correlation sqrt(1/2)."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    x, w = z * nodes, z * weights
    kernel = stats.norm.pdf(x[:, None], loc=math.sqrt(0.5) * x[None, :], scale=math.sqrt(0.5))
    density = stats.norm.pdf(x)
    for _ in range(count - 1):
        density = kernel @ (w * density)
    return float(w @ density)


def mean_interval(samples: np.ndarray, level: float, rounding: float) -> tuple[float, float, float]:
    """Mean, its standard error, and the half-width of Student's interval at ``level``.

    Args:
        samples: (k,), independent, k >= 2.
        level: confidence of the interval.
        rounding: relative rounding error of the samples, below which no interval shrinks.
    """
    mean = float(samples.mean())
    stderr = float(samples.std(ddof=1) / math.sqrt(len(samples)))
    quantile = float(stats.t.ppf(0.5 + level / 2, len(samples) - 1))
    return mean, stderr, max(quantile * stderr, rounding * abs(mean))
