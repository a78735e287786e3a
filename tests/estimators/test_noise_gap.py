"""The loss gained by noise against closed forms: quadratics draw by draw, fourth powers within standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hessdiag.cost import Cost
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators import noise_gap as module
from hessdiag.estimators.noise_gap import DEFAULT_SIGMAS, DISTRIBUTIONS, mean_squared_deviation, noise_gap
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.problem import Problem
from hessdiag.results import GapResult, TraceResult

KURTOSIS = {"gaussian": 3.0, "laplace": 6.0, "uniform": 1.8, "binomial": 2.5}
FEATURES, OUTPUTS, EXAMPLES = 12, 3, 50


def known_trace(value: float, stderr: float = 0.0) -> TraceResult:
    return TraceResult(value, stderr, (value, value), 0.95, "exact", 1, 0, True, 0.0, (), 0, Cost())


def regression(dtype: torch.dtype = torch.float64) -> Problem:
    """Linear least squares in uneven batches, away from its minimum."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, FEATURES, generator=generator, dtype=dtype)
    y = torch.randn(EXAMPLES, OUTPUTS, generator=generator, dtype=dtype)
    model = nn.Linear(FEATURES, OUTPUTS, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.randn(OUTPUTS, FEATURES, generator=generator, dtype=dtype) / 4)
    return Problem(model, "mse", list(zip(x.split(20), y.split(20), strict=True)))


def regression_hessian(problem: Problem) -> Tensor:
    """2/(N K) I_K kron X^T X, for the mean over N examples of the mean over K outputs."""
    x = torch.cat([batch.inputs for batch in problem.batches()])
    return torch.kron(torch.eye(OUTPUTS, dtype=x.dtype), x.T @ x) * (2 / (EXAMPLES * OUTPUTS))


def units(problem: Problem, distribution: str, draws: int, seed: int = 0) -> Tensor:
    probes = Probes(problem.n, seed=seed, stream=Stream.GAP, distribution=distribution, dtype=problem.dtype)
    return torch.stack([probes(number) for number in range(draws)])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_draw_is_half_the_quadratic_form(distribution: str) -> None:
    problem = regression()
    H, U = regression_hessian(problem), units(problem, distribution, 7)
    forms = ((U @ H) * U).sum(1).numpy() / 2
    result = noise_gap(problem, sigmas=[0.02, 0.5], draws=7, distribution=distribution, trace=known_trace(1.0))
    for row in result.rows:
        assert row.gap == pytest.approx(row.sigma**2 * forms.mean(), rel=1e-10)
        assert row.std == pytest.approx(row.sigma**2 * forms.std(ddof=1), rel=1e-9)
        assert row.stderr == pytest.approx(row.std / math.sqrt(7), rel=1e-12)
    for two in range(2, 8):  # the mean over the first k, for every k: so each single draw is right
        some = noise_gap(problem, sigmas=[0.1], draws=two, distribution=distribution, trace=known_trace(1.0))
        assert some.rows[0].gap == pytest.approx(0.01 * forms[:two].mean(), rel=1e-10)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_the_mean_on_a_quadratic(estimator: str, distribution: str) -> None:
    problem = regression()
    truth = float(regression_hessian(problem).trace())
    result = noise_gap(
        problem,
        sigmas=[0.02, 0.2],
        draws=600,
        estimator=estimator,
        distribution=distribution,
        trace=known_trace(truth),
    )
    for row in result.rows:
        assert row.predicted == pytest.approx(row.sigma**2 / 2 * truth, rel=1e-12)
        assert abs(row.gap - row.predicted) < 3 * row.stderr
        assert row.relative_deviation == pytest.approx(row.gap / row.predicted - 1)
        assert row.relative_deviation_stderr == pytest.approx(row.stderr / row.predicted)
    deviations = [row.relative_deviation for row in result.rows]
    assert result.rss == pytest.approx(np.mean(np.square(deviations)))


def test_the_trace_is_measured_where_it_is_not_given() -> None:
    problem = regression()
    result = noise_gap(problem, sigmas=[0.1], draws=400)
    (row,) = result.rows
    assert row.predicted_stderr > 0
    assert abs(row.gap - row.predicted) < 3 * math.hypot(row.stderr, row.predicted_stderr)
    assert row.relative_deviation_stderr >= row.stderr / row.predicted
    assert result.cost.hvp >= 16


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_one_sided_pays_for_the_gradient(sigma: float) -> None:
    problem = regression()
    H, g = regression_hessian(problem), problem.gradient()
    ratio = 1 + 2 * float(g @ g) / (sigma**2 * float((H**2).sum()))
    one, two = (
        noise_gap(problem, sigmas=[sigma], draws=800, estimator=estimator, trace=known_trace(1.0)).rows[0].std
        for estimator in ("one-sided", "two-sided")
    )
    assert one is not None
    assert two is not None
    assert (one / two) ** 2 == pytest.approx(ratio, rel=0.35)


@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_the_same_draws_serve_every_sigma(estimator: str) -> None:
    problem = regression()
    sigmas = [0.01, 0.1, 1.0]
    together = noise_gap(problem, sigmas=sigmas, draws=9, estimator=estimator, trace=known_trace(1.0))
    alone = [
        noise_gap(problem, sigmas=[sigma], draws=9, estimator=estimator, trace=known_trace(1.0)).rows[0]
        for sigma in sigmas
    ]
    assert list(together.rows) == alone
    if estimator == "two-sided":  # perfectly correlated: the spread scales with the mean
        for row in together.rows:
            assert row.gap / row.sigma**2 == pytest.approx(together.rows[0].gap / sigmas[0] ** 2, rel=1e-8)
            assert row.std is not None
            assert row.std / row.gap == pytest.approx(together.rows[0].std / together.rows[0].gap, rel=1e-7)  # type: ignore[operator]


class FourthPower(nn.Module):
    """f = mean of w_i^4, whatever the data."""

    def __init__(self, value: float, n: int = 200) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((n,), value, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w**4).mean().expand(len(x))


def units_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_fourth_power(estimator: str, distribution: str) -> None:
    w, sigmas = 0.7, [0.1, 0.5, 1.5]
    data = [(torch.zeros(4, 1), torch.zeros(4)), (torch.zeros(1, 1), torch.zeros(1))]
    problem = Problem(FourthPower(w), units_loss, data)
    result = noise_gap(
        problem, sigmas=sigmas, draws=400, estimator=estimator, distribution=distribution, trace=known_trace(12 * w**2)
    )
    for row in result.rows:
        truth = 6 * w**2 * row.sigma**2 + KURTOSIS[distribution] * row.sigma**4
        assert abs(row.gap - truth) < 3.5 * row.stderr
        assert row.predicted == pytest.approx(6 * w**2 * row.sigma**2)
    last = result.rows[-1]
    assert last.relative_deviation is not None
    assert last.relative_deviation == pytest.approx(KURTOSIS[distribution] * 1.5**2 / (6 * w**2), rel=0.2)


def numbers(result: GapResult) -> tuple[object, ...]:
    return (result.rows, result.rss)


@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_reproducible_whatever_the_memory(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(seed: int = 0) -> tuple[object, ...]:
        return numbers(noise_gap(regression(), draws=7, estimator=estimator, seed=seed, trace=known_trace(1.0)))

    usual = measured()
    assert usual == measured()
    assert usual != measured(seed=1)
    for together in (1, 3, 100):
        monkeypatch.setattr(module, "chunk_size", lambda *_, size=together: size)
        assert measured() == usual


@pytest.mark.parametrize(("estimator", "sides"), [("two-sided", 2), ("one-sided", 1)])
def test_cost_and_defaults(estimator: str, sides: int) -> None:
    result = noise_gap(regression(), draws=5, estimator=estimator, trace=known_trace(1.0))
    assert [row.sigma for row in result.rows] == list(DEFAULT_SIGMAS) == [0.008, 0.01, 0.012]
    assert result.cost.forward == 5 * 3 * sides + 1  # and once without noise
    assert result.cost.hvp == result.cost.gradient == 0
    assert (result.noise, result.draws, result.estimator, result.distribution) == ("shared", 5, estimator, "gaussian")


def test_a_zero_prediction_has_no_relative_deviation() -> None:
    result = noise_gap(regression(), draws=3, trace=known_trace(0.0))
    assert result.rss is None
    assert all(row.relative_deviation is row.relative_deviation_stderr is None for row in result.rows)


def test_rss_by_hand() -> None:
    assert mean_squared_deviation([0.1, -0.3, 0.2]) == pytest.approx((0.01 + 0.09 + 0.04) / 3)
    assert mean_squared_deviation([-0.25]) == pytest.approx(0.0625)
    assert mean_squared_deviation([0.1, None]) is None


def test_the_model_is_left_as_found() -> None:
    problem = regression(torch.float32)
    weight = problem.model.weight
    assert isinstance(weight, Tensor)
    before, storage = weight.detach().clone(), weight.data_ptr()
    noise_gap(problem, draws=3)
    assert torch.equal(weight, before)
    assert weight.data_ptr() == storage
    assert weight.grad is None
    assert problem.model.training


class Logarithm(FourthPower):
    """Finite at w, not a number where noise makes some w_i negative."""

    def forward(self, x: Tensor) -> Tensor:
        return self.w.log().mean().expand(len(x))


def test_a_loss_that_is_not_finite_names_its_sigma() -> None:
    problem = Problem(Logarithm(1.0), units_loss, [(torch.zeros(2, 1), torch.zeros(2))])
    with pytest.raises(MeasurementError, match=r"not finite at noise sigma 5\b.*lower sigma"):
        noise_gap(problem, sigmas=[1e-3, 5.0], draws=3, trace=known_trace(1.0))
    assert torch.equal(next(problem.model.parameters()), torch.ones(200, dtype=torch.float64))
    assert problem.model.training


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"sigmas": []}, "sigma: found"),
        ({"sigmas": [0.1, -0.1]}, "-0.1.*expected one or more positive"),
        ({"sigmas": [0.0]}, "sigma: found"),
        ({"sigmas": [float("inf")]}, "sigma: found"),
        ({"sigmas": [float("nan")]}, "sigma: found"),
        ({"draws": 1}, "draws: found 1, expected at least 2"),
        ({"estimator": "three-sided"}, "'three-sided', expected one of two-sided, one-sided"),
        ({"distribution": "cauchy"}, "'cauchy', expected one of gaussian, laplace, uniform, binomial"),
        ({"distribution": "rademacher"}, "'rademacher'"),
    ],
    ids=str,
)
def test_bad_requests(request_: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        noise_gap(regression(), **request_)  # type: ignore[arg-type]


def test_a_sigma_beyond_the_range_of_the_weights_is_refused() -> None:
    problem = Problem(torch.nn.Linear(2, 1), "mse", [(torch.ones(3, 2), torch.ones(3, 1))])
    with pytest.raises(UsageError, match=r"found 1e\+39, expected at most 3.4\d+e\+38"):
        noise_gap(problem, sigmas=[0.1, 1e39], draws=2)
