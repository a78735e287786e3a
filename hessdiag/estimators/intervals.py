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


def mean_interval(samples: np.ndarray, level: float, rounding: float) -> tuple[float, float, tuple[float, float]]:
    """Mean, its standard error, and a confidence interval at ``level`` that holds for skewed samples.

    Where one eigenvalue carries much of a trace the samples are skewed, as a chi-square variable is, and mean
    and spread are low together: Student's interval then stops early, on the low side. Hall's (1992) cubic
    g(t) = t + a t^2 + a^2 t^3 / 3 + b, with a = skewness / (3 sqrt k) and b = skewness / (6 sqrt k), takes the
    skewness out of t = (mean - truth) / stderr; the ends are mean - stderr g^-1(+-q), q Student's quantile.
    Without skewness this is Student's interval.

    Args:
        samples: (k,), independent, k >= 2.
        level: confidence of the interval.
        rounding: relative rounding error of the samples, below which no interval shrinks.
    """
    count, mean, spread = len(samples), float(samples.mean()), float(samples.std(ddof=1))
    stderr = spread / math.sqrt(count)
    quantile = float(stats.t.ppf(0.5 + level / 2, count - 1))
    skewness = float((((samples - mean) / spread) ** 3).mean()) if spread > 0 else 0.0
    floor = rounding * abs(mean)
    low = mean - max(stderr * _unskewed(quantile, skewness, count), floor)
    high = mean - min(stderr * _unskewed(-quantile, skewness, count), -floor)
    return mean, stderr, (low, high)


def _unskewed(t: float, skewness: float, count: int) -> float:
    """Hall's g^-1(t)."""
    a, shifted = skewness / (3 * math.sqrt(count)), t - skewness / (6 * math.sqrt(count))
    # The cube root cancels for a small a; there the series is exact to rounding.
    return shifted - a * shifted**2 if abs(a) < 1e-6 else (math.cbrt(1 + 3 * a * shifted) - 1) / a
