"""Hutchinson's estimate: exact variance, unbiasedness, groups, and what it says when it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spectra import rotated, uniform
from torch import Tensor

from hessdiag.curvature import DenseOperator
from hessdiag.errors import UsageError
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.trace import trace
from hessdiag.problem import Group
from hessdiag.results import TraceResult

N = 40
MATRICES = [rotated(uniform(N, low, high, seed), seed) for seed, (low, high) in enumerate([(-1, 1), (0, 3), (-2, 0.5)])]
WHOLE = torch.stack(MATRICES).sum(0)
SAMPLES = 4_000


def forms(H: DenseOperator, per_batch: bool = True, samples: int = SAMPLES) -> np.ndarray:
    """(samples, groups)"""
    draw = Probes(H.n, seed=0, stream=Stream.TRACE, dtype=torch.float64)
    return H.quadratic_forms(draw, range(samples), per_batch=per_batch).numpy()


def off_diagonal_variance(A: Tensor) -> float:
    return 2 * float((A**2).sum() - (A.diagonal() ** 2).sum())


def assert_mean_and_variance(samples: np.ndarray, mean: float, variance: float) -> None:
    k, deviations = len(samples), samples - samples.mean()
    assert abs(samples.mean() - mean) < 4 * samples.std(ddof=1) / math.sqrt(k)
    fourth = np.mean(deviations**4)
    assert abs(samples.var(ddof=1) - variance) < 4 * math.sqrt((fourth - samples.var() ** 2) / k)


@pytest.fixture(scope="module")
def shared() -> np.ndarray:
    return forms(DenseOperator(MATRICES), per_batch=False).sum(1)


def test_variance_with_one_vector_for_all(shared: np.ndarray) -> None:
    assert_mean_and_variance(shared, float(WHOLE.trace()), off_diagonal_variance(WHOLE))


def test_variance_with_a_fresh_vector_for_each_batch(shared: np.ndarray) -> None:
    fresh = forms(DenseOperator(MATRICES)).sum(1)
    variance = sum(off_diagonal_variance(A) for A in MATRICES)
    assert_mean_and_variance(fresh, float(WHOLE.trace()), variance)


def test_a_fresh_vector_for_each_batch_has_less_variance_where_batches_agree() -> None:
    agreeing = DenseOperator([MATRICES[1] / 8] * 8)
    fresh, common = (forms(agreeing, per_batch, 1000).sum(1).var() for per_batch in (True, False))
    assert fresh == pytest.approx(common / 8, rel=0.25)


def test_groups_are_unbiased_and_add_up() -> None:
    groups = [Group("first", 7), Group("second", 1), Group("third", 32)]
    H = DenseOperator(MATRICES, groups)
    samples = forms(H)
    parts = torch.split(WHOLE.diagonal(), [7, 1, 32])
    for column, part in zip(samples.T, parts, strict=True):
        assert abs(column.mean() - float(part.sum())) < 4 * column.std(ddof=1) / math.sqrt(SAMPLES)
    result = trace(H, max_matvecs=100, rtol=1e-9)
    assert [(group.name, group.parameters) for group in result.groups] == [("first", 7), ("second", 1), ("third", 32)]
    assert math.fsum(group.value for group in result.groups) == pytest.approx(result.value, rel=1e-14)
    assert result.groups[0].stderr == pytest.approx(samples[:100, 0].std(ddof=1) / 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_diagonal_matrix_is_exact_to_rounding(dtype: torch.dtype) -> None:
    diagonal = torch.tensor(uniform(1000, -1, 3)).to(dtype)
    result = trace(DenseOperator(torch.diag(diagonal)))
    truth = float(diagonal.double().sum())
    assert result.converged
    assert result.probes == result.matvecs == 16
    assert result.interval[0] <= truth <= result.interval[1]
    floor = 2.5 * torch.finfo(dtype).eps
    assert result.interval[1] - result.interval[0] >= 2 * floor * abs(result.value) * (1 - 1e-9)


def test_the_zero_matrix() -> None:
    result = trace(DenseOperator(torch.zeros(9, 9)))
    assert result.converged
    assert (result.value, result.stderr, result.interval) == (0.0, 0.0, (0.0, 0.0))


def test_a_negative_trace() -> None:
    A = rotated(uniform(200, -2, -1))
    result = trace(DenseOperator(A), rtol=0.02)
    assert result.converged
    assert result.value < 0
    assert result.interval[0] <= float(A.trace()) <= result.interval[1] < 0


def test_a_trace_near_zero_is_not_converged() -> None:
    A = rotated([1.0] * 50 + [-1.0] * 50)
    H = DenseOperator(A)
    result = trace(H, method="hutchinson", max_matvecs=300)
    assert not result.converged
    assert result.probes == result.matvecs == H.meter.read().hvp == 300
    assert result.interval[0] <= 0 <= result.interval[1]


@pytest.mark.parametrize("maximum", [2, 3, 15, 16, 17])
def test_small_budgets(maximum: int) -> None:
    H = DenseOperator(MATRICES)
    result = trace(H, max_matvecs=maximum, rtol=1e-9)
    assert not result.converged
    assert result.probes == result.cost.hvp == maximum
    assert result.interval[0] < result.value < result.interval[1]


def test_stops_at_a_look() -> None:
    for seed in range(10):
        result = trace(DenseOperator(MATRICES), rtol=0.3, max_matvecs=1000, seed=seed)
        low, high = result.interval
        assert result.probes in (16, 32, 64, 128, 256, 512, 1000)
        assert result.converged == ((high - low) / 2 <= 0.3 * abs(result.value))


def test_a_wider_confidence_is_wider() -> None:
    def width(confidence: float) -> float:
        low, high = trace(DenseOperator(MATRICES), confidence=confidence, rtol=1e-9, max_matvecs=64).interval
        return high - low

    assert width(0.5) < width(0.9) < width(0.95) < width(0.999)


def plain(result: TraceResult) -> tuple[object, ...]:
    return (result.value, result.stderr, result.interval, result.groups, result.probes)


def test_a_seed_is_a_measurement() -> None:
    def measured(seed: int) -> tuple[object, ...]:
        return plain(trace(DenseOperator(MATRICES), max_matvecs=40, seed=seed))

    assert measured(7) == measured(7)
    assert measured(7)[0] != measured(8)[0]


def test_other_probes_than_those_of_the_seed() -> None:
    given = Probes(N, seed=8, stream=Stream.TRACE, dtype=torch.float64)
    by_seed, by_probes = (
        trace(DenseOperator(MATRICES), max_matvecs=40, **options)  # type: ignore[arg-type]
        for options in ({"seed": 8}, {"seed": 0, "probes": given})
    )
    assert plain(by_seed) == plain(by_probes)


@pytest.mark.parametrize(
    ("request_", "message"),
    [({"method": "magic"}, "'magic', expected one of auto, deflated"), ({"max_matvecs": 1}, "found 1, expected at")],
    ids=str,
)
def test_bad_requests(request_: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trace(DenseOperator(torch.eye(3)), **request_)  # type: ignore[arg-type]
