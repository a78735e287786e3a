"""The largest sigma at which the gap is as predicted: found where there is one, and only there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hessdiag
from hessdiag.cost import Cost
from hessdiag.curvature import HessianOperator
from hessdiag.estimators.gap_table import gap_table
from hessdiag.estimators.noise_gap import gap_steps, noise_gap
from hessdiag.estimators.sigma_search import search_sigmas, window
from hessdiag.estimators.steps import Steps, run_together
from hessdiag.problem import Problem
from hessdiag.results import SigmaSearch, TraceResult

FIXTURES = Path(__file__).parents[2] / "fixtures"


def known_trace(value: float) -> TraceResult:
    return TraceResult(value, 0.0, (value, value), 0.95, "exact", 1, 0, True, 0.0, (), 0, Cost())


class Exact:
    """A sample without noise: the deviation is a function of sigma."""

    def __init__(self, deviation: Callable[[float], float], rounding: float = 0.0) -> None:
        self.deviation, self.rounding = deviation, rounding
        self.forms = np.full((8, 3), 2.0)
        self.asked: list[float] = []

    def take(self, sigmas: Sequence[float], draws: int) -> Steps[None]:
        self.asked += sigmas
        return
        yield

    def taken(self, sigmas: Sequence[float]) -> int:
        return 8

    def remainders(self, sigma: float) -> np.ndarray:
        return self.deviation(sigma) * sigma**2 / 2 * self.forms


def searched(sample: Exact, largest: float = 1.0) -> SigmaSearch:
    steps = search_sigmas(sample, largest=largest, draws=8)  # type: ignore[arg-type]
    with contextlib.suppress(StopIteration):
        next(steps)
        raise AssertionError
    again = search_sigmas(sample, largest=largest, draws=8)  # type: ignore[arg-type]
    try:
        next(again)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError


@pytest.mark.parametrize("edge", [0.3, 0.04, 0.0011, 5e-5])
def test_the_edge_is_found_to_nine_per_cent(edge: float) -> None:
    found = searched(Exact(lambda sigma: 0.03 * (sigma / edge) ** 2))
    assert found.converged
    assert found.largest is not None
    assert edge / 1.1 < found.largest <= edge


def test_where_all_agree_the_range_ends_the_search() -> None:
    found = searched(Exact(lambda sigma: 0.0), largest=0.5)
    assert (found.largest, found.converged) == (0.5, True)


def test_none_is_said_where_kinks_stay() -> None:
    found = searched(Exact(lambda sigma: 0.04 + sigma**2))
    assert (found.largest, found.converged) == (None, True)
    assert found.tried == (pytest.approx(2**-19, rel=0.01), 1.0)


def test_a_crossing_is_no_agreement() -> None:
    """From a gain of 100 % to a loss of 100 % the deviation passes through zero."""
    found = searched(Exact(lambda sigma: -math.tanh(math.log(sigma / 0.25))))
    assert found.largest is None
    both = searched(Exact(lambda sigma: (sigma / 0.01) ** 2 * (0.25 - sigma)))
    assert both.largest is not None
    assert both.largest < 0.0036


def test_rounding_ends_the_search() -> None:
    """A deviation of 3 % is 0.09 sigma^2 here: ten times the rounding down to sigma = 0.0105."""
    sample = Exact(lambda sigma: 1.0, rounding=1e-6)
    assert searched(sample).tried[0] == pytest.approx(2**-6, rel=0.01)


def test_the_window() -> None:
    assert window(0.04) == (0.01, 0.0141, 0.02, 0.0283, 0.04)


class Power(nn.Module):
    def __init__(self, n: int = 100) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((n,), 0.7, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w**4).mean().expand(len(x))


class Logarithm(Power):
    """Not a number where noise makes a weight negative."""

    def forward(self, x: Tensor) -> Tensor:
        return self.w.log().mean().expand(len(x))


def problem_of(model: nn.Module) -> Problem:
    return Problem(model, lambda outputs, targets: outputs, [(torch.zeros(4, 1), torch.zeros(4))] * 3)


@pytest.mark.parametrize("noise", ["per-batch", "shared"])
def test_a_fourth_power(noise: str) -> None:
    """(6 w^2 s^2 + 3 s^4) / (6 w^2 s^2) - 1 = s^2 / (2 w^2) is 3 % at s = 0.245 w."""
    result = noise_gap(problem_of(Power()), sigmas="auto", draws=32, noise=noise, trace=known_trace(12 * 0.7**2))
    assert result.search is not None
    assert result.search.largest is not None
    assert 0.18 * 0.7 < result.search.largest < 0.245 * 0.7 * 1.02
    assert [row.sigma for row in result.rows] == list(window(result.search.largest))
    assert result.fit is not None
    assert abs(result.fit.kinks.value) <= 3 * result.fit.kinks.stderr + 1e-10


def test_losses_that_are_not_finite_end_the_search_upwards() -> None:
    """E log(w + s z) - log w = -x/2 - 3 x^2/4 - ... with x = (s/w)^2: 3 % at s = 0.14 w."""
    result = noise_gap(problem_of(Logarithm()), sigmas="auto", trace=known_trace(-1 / 0.7**2))
    assert result.search is not None
    assert result.search.largest is not None
    assert 0.1 * 0.7 < result.search.largest < 0.145 * 0.7


def test_a_rectifier_network_has_none_and_shows_what_was_tried() -> None:
    problem = hessdiag.load(FIXTURES / "digits/audit.yaml", overrides=["data.max_examples=300", "data.batch_size=50"])
    result = noise_gap(problem, sigmas="auto", trace=known_trace(3.3))
    assert result.search is not None
    assert (result.search.largest, result.search.converged) == (None, True)
    assert (result.rows[0].sigma, result.rows[-1].sigma) == result.search.tried
    assert result.fit is None
    assert all(abs(row.relative_deviation or 0) > 0.03 for row in result.rows)


def test_time_up_is_no_verdict() -> None:
    H = HessianOperator(problem_of(Power()))
    drawn = run_together(H, {"gap": gap_steps(H, sigmas="auto")}, deadline=0.0)["gap"]
    result = gap_table(drawn, known_trace(12 * 0.7**2))
    assert result.search is not None
    assert not result.search.converged
    assert not result.converged
    assert (result.draws, len(result.rows)) == (8, 4)
