"""Looks, their level, and the interval of a mean, against simulation and known values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from hessdiag.estimators.intervals import look_level, looks, mean_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [(2, [2]), (16, [16]), (17, [16, 17]), (32, [16, 32]), (100, [16, 32, 64, 100]), (15, [15])],
)
def test_looks(maximum: int, expected: list[int]) -> None:
    assert looks(maximum) == expected


def test_one_look_costs_nothing() -> None:
    assert look_level(1, 0.95) == 0.95


def test_two_looks_by_the_bivariate_normal() -> None:
    z = stats.norm.ppf(0.5 + look_level(2, 0.95) / 2)
    pair = stats.multivariate_normal(cov=[[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]])
    corners = [pair.cdf([sign * z, other * z]) for sign, other in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    assert corners[0] - corners[1] - corners[2] + corners[3] == pytest.approx(0.95, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_all_looks_hold_together(count: int, confidence: float) -> None:
    rng = np.random.default_rng(count)
    paths = 200_000
    z = stats.norm.ppf(0.5 + look_level(count, confidence) / 2)
    position = rng.standard_normal(paths)
    inside = np.abs(position) <= z
    for _ in range(count - 1):
        position = math.sqrt(0.5) * (position + rng.standard_normal(paths))
        inside &= np.abs(position) <= z
    assert abs(inside.mean() - confidence) < 4 * math.sqrt(confidence * (1 - confidence) / paths)


def test_levels_grow_with_looks_and_stay_below_bonferroni() -> None:
    levels = [look_level(count, 0.95) for count in range(1, 13)]
    assert all(low < high for low, high in itertools.pairwise(levels))
    assert all(level <= 1 - 0.05 / count for count, level in enumerate(levels, 1))


def test_without_skewness_the_interval_is_students() -> None:
    samples = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    mean, stderr, interval = mean_interval(samples, 0.95, 0.0)
    expected = stats.t.interval(0.95, 5, loc=mean, scale=stderr)
    assert (mean, stderr) == (3.5, pytest.approx(samples.std(ddof=1) / math.sqrt(6)))
    assert interval == pytest.approx(expected, rel=1e-12)


def test_the_interval_moves_with_the_samples() -> None:
    samples = np.random.default_rng(0).exponential(size=20)
    _, _, (low, high) = mean_interval(samples, 0.95, 0.0)
    _, _, (scaled_low, scaled_high) = mean_interval(5 - 3 * samples, 0.95, 0.0)
    assert (scaled_low, scaled_high) == pytest.approx((5 - 3 * high, 5 - 3 * low))
    assert high - samples.mean() > samples.mean() - low  # the long tail's side


def test_a_tiny_skewness_is_no_cliff() -> None:
    base = np.linspace(-1, 1, 41)
    ends = []
    for bend in (0.0, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4):
        _, _, interval = mean_interval(base + bend * base**2, 0.95, 0.0)
        ends.append(interval)
    assert np.ptp(np.array(ends), axis=0).max() < 1e-3


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_an_exact_value_keeps_a_rounding_floor(value: float) -> None:
    mean, stderr, (low, high) = mean_interval(np.full(16, value), 0.95, 1e-7)
    assert (mean, stderr) == (value, 0.0)
    assert (low, high) == (value - 3e-7, value + 3e-7)


def test_zero_is_exactly_zero() -> None:
    assert mean_interval(np.zeros(16), 0.95, 1e-7) == (0.0, 0.0, (0.0, 0.0))


RUNS = 600


def covered(draw: Draw, rtol: float, interval: Callable[[np.ndarray, float], tuple[float, float]]) -> float:
    """The share of RUNS runs, stopped as the trace is, whose interval holds the mean, 1."""
    rng = np.random.default_rng(1)
    sizes = looks(256)
    level, hits = look_level(len(sizes), 0.95), 0
    for _ in range(RUNS):
        samples = draw(rng, sizes[-1])
        for size in sizes:
            low, high = interval(samples[:size], level)
            if (high - low) / 2 <= rtol * abs(samples[:size].mean()):
                break
        hits += low <= 1 <= high
    return hits / RUNS


def students(samples: np.ndarray, level: float) -> tuple[float, float]:
    reach = float(stats.t.ppf(0.5 + level / 2, len(samples) - 1) * samples.std(ddof=1) / math.sqrt(len(samples)))
    return float(samples.mean()) - reach, float(samples.mean()) + reach


def half_in_one_outlier(rng: np.random.Generator, count: int) -> np.ndarray:
    return 0.5 + 0.5 * rng.standard_normal(count) ** 2


def symmetric(rng: np.random.Generator, count: int) -> np.ndarray:
    return 1 + 0.7 * rng.standard_normal(count)


@pytest.mark.parametrize("draw", [half_in_one_outlier, symmetric])
@pytest.mark.parametrize("rtol", [0.5, 0.3, 0.1])
def test_coverage_with_stopping(draw: Draw, rtol: float) -> None:
    assert covered(draw, rtol, lambda samples, level: mean_interval(samples, level, 0.0)[2]) >= 0.945


def test_students_interval_would_not_cover() -> None:
    assert covered(half_in_one_outlier, 0.3, students) < 0.935
