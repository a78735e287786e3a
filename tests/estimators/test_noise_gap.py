"""The loss gained by noise against closed forms: quadratics draw by draw, fourth powers within standard errors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hessdiag.cost import Cost
from hessdiag.curvature import HessianOperator, dense_hessian
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators import gap_draws
from hessdiag.estimators.gap_draws import pooled
from hessdiag.estimators.gap_table import gap_table, mean_squared_deviation
from hessdiag.estimators.noise_gap import DEFAULT_SIGMAS, DISTRIBUTIONS, NOISES, gap_steps, noise_gap, taken
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import Steps, run_together
from hessdiag.problem import Problem
from hessdiag.results import Estimate, GapResult, TraceResult

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


def shared(problem: Problem, **options: Any) -> GapResult:
    return noise_gap(problem, noise="shared", **options)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_draw_is_half_the_quadratic_form(distribution: str) -> None:
    problem = regression()
    H, U = regression_hessian(problem), units(problem, distribution, 7)
    forms = ((U @ H) * U).sum(1).numpy() / 2
    result = shared(problem, sigmas=[0.02, 0.5], draws=7, distribution=distribution, trace=known_trace(1.0))
    for row in result.rows:
        assert row.gap == pytest.approx(row.sigma**2 * forms.mean(), rel=1e-10)
        assert row.std == pytest.approx(row.sigma**2 * forms.std(ddof=1), rel=1e-9)
        assert row.stderr == pytest.approx(row.std / math.sqrt(7), rel=1e-12)
    for two in range(2, 8):  # the mean over the first k, for every k: so each single draw is right
        some = shared(problem, sigmas=[0.1], draws=two, distribution=distribution, trace=known_trace(1.0))
        assert some.rows[0].gap == pytest.approx(0.01 * forms[:two].mean(), rel=1e-10)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_the_mean_on_a_quadratic(estimator: str, distribution: str) -> None:
    problem = regression()
    truth = float(regression_hessian(problem).trace())
    result = shared(
        problem,
        sigmas=[0.02, 0.2],
        draws=300,
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


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_quadratic_has_no_remainder(noise: str, distribution: str) -> None:
    problem = regression()
    result = noise_gap(problem, sigmas=[0.02, 0.2, 2.0], distribution=distribution, noise=noise, trace=known_trace(5.0))
    for row in result.rows:
        assert row.remainder == pytest.approx(0, abs=1e-12 * row.sigma**2)
        assert row.remainder_stderr < 1e-14  # type: ignore[operator]
        if noise == "per-batch":  # what is known of the quadratic term is the trace, wrong as it may be
            assert (row.gap, row.std) == (pytest.approx(row.predicted), None)
            assert row.relative_deviation == pytest.approx(0, abs=1e-10)
    assert result.draws == 100 if noise == "shared" else result.draws <= 16  # a matter of rounding
    assert result.fit is not None
    assert result.fit.hessian == Estimate(2.5, 0.0)
    assert result.fit.kinks.value == pytest.approx(0, abs=1e-11)
    assert result.fit.higher_order.value == pytest.approx(0, abs=1e-11)


def test_the_trace_is_measured_where_it_is_not_given() -> None:
    problem = regression()
    truth = float(regression_hessian(problem).trace())
    for noise in NOISES:
        result = noise_gap(problem, sigmas=[0.1], noise=noise)
        (row,) = result.rows
        assert abs(row.predicted - 0.005 * truth) <= 3 * row.predicted_stderr + 1e-12
        assert abs(row.gap - 0.005 * truth) <= 3 * row.stderr + 1e-12
        assert row.relative_deviation == pytest.approx(row.gap / row.predicted - 1, abs=1e-12)


def test_one_sided_pays_for_the_gradient() -> None:
    problem = regression()
    H, g = regression_hessian(problem), problem.gradient()
    sigmas = [0.05, 0.2, 1.0]
    tables = (
        shared(problem, sigmas=sigmas, draws=500, estimator=estimator, trace=known_trace(1.0)).rows
        for estimator in ("one-sided", "two-sided")
    )
    for one, two in zip(*tables, strict=True):
        ratio = 1 + 2 * float(g @ g) / (one.sigma**2 * float((H**2).sum()))
        assert one.std is not None
        assert two.std is not None
        assert (one.std / two.std) ** 2 == pytest.approx(ratio, rel=0.35)


@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_the_same_draws_serve_every_sigma(estimator: str) -> None:
    problem = regression()
    sigmas = [0.01, 0.1, 1.0]
    together = shared(problem, sigmas=sigmas, draws=9, estimator=estimator, trace=known_trace(1.0))
    alone = [
        shared(problem, sigmas=[sigma], draws=9, estimator=estimator, trace=known_trace(1.0)).rows[0]
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
@pytest.mark.parametrize("noise", NOISES)
def test_fourth_power(noise: str, estimator: str, distribution: str) -> None:
    """F - f = 6 w^2 sigma^2 + kappa sigma^4, of which the second is the remainder."""
    w, sigmas = 0.7, [0.1, 0.5, 1.5]
    data = [(torch.zeros(4, 1), torch.zeros(4)), (torch.zeros(1, 1), torch.zeros(1))]
    problem = Problem(FourthPower(w), units_loss, data)
    result = noise_gap(
        problem,
        sigmas=sigmas,
        draws=200,
        rtol=None,
        estimator=estimator,
        distribution=distribution,
        noise=noise,
        trace=known_trace(12 * w**2),
    )
    kurtosis = KURTOSIS[distribution]
    assert result.draws == 200
    for row in result.rows:
        # Fourth powers are skewed: 48 comparisons need room.
        assert abs(row.gap - (6 * w**2 * row.sigma**2 + kurtosis * row.sigma**4)) < 4.5 * row.stderr
        assert row.remainder is not None
        assert row.remainder_stderr is not None
        assert abs(row.remainder - kurtosis * row.sigma**4) < 4.5 * row.remainder_stderr
        assert row.predicted == pytest.approx(6 * w**2 * row.sigma**2)
        assert row.relative_deviation == pytest.approx((row.gap - row.predicted) / row.predicted)
    assert result.rows[-1].relative_deviation == pytest.approx(kurtosis * 1.5**2 / (6 * w**2), rel=0.2)
    assert result.fit is not None
    assert abs(result.fit.higher_order.value - kurtosis * 1.5**2) < 4.5 * result.fit.higher_order.stderr
    assert abs(result.fit.kinks.value) < 4.5 * result.fit.kinks.stderr
    if estimator == "two-sided":  # the remainder of one draw is sigma^4 sum u^4: a line without intercept
        assert result.fit.kinks.value == pytest.approx(0, abs=1e-10)


def numbers(result: GapResult) -> tuple[object, ...]:
    return (result.rows, result.rss)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_reproducible_whatever_the_memory(estimator: str, noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(seed: int = 0) -> tuple[object, ...]:
        options: dict[str, Any] = {"draws": 7, "estimator": estimator, "noise": noise}
        return numbers(noise_gap(regression(torch.float32), seed=seed, trace=known_trace(1.0), **options))

    usual = measured()
    assert usual == measured()
    assert usual != measured(seed=1)
    for together in (1, 3, 100):
        monkeypatch.setattr(gap_draws, "chunk_size", lambda *_, size=together: size)
        assert measured() == usual


@pytest.mark.parametrize(("estimator", "sides"), [("two-sided", 2), ("one-sided", 1)])
@pytest.mark.parametrize("noise", NOISES)
def test_cost_and_defaults(noise: str, estimator: str, sides: int) -> None:
    result = noise_gap(regression(), draws=5, estimator=estimator, noise=noise, trace=known_trace(1.0))
    assert [row.sigma for row in result.rows] == list(DEFAULT_SIGMAS) == [0.008, 0.01, 0.012]
    assert result.cost.forward == 5 * 3 * sides + 1  # and once without noise
    assert result.cost.hvp == 5  # one product for each draw serves every sigma
    assert result.cost.gradient == 0
    assert (result.noise, result.draws, result.estimator, result.distribution) == (noise, 5, estimator, "gaussian")
    assert all((row.std is None) == (noise == "per-batch") for row in result.rows)
    usual = noise_gap(regression(), draws=5, trace=known_trace(1.0))
    assert (usual.noise, usual.estimator) == ("per-batch", "two-sided")


@pytest.fixture(scope="module")
def network() -> Problem:
    """Smooth, in uneven batches, at no minimum; its trace is 2.4."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (30,), generator=generator)
    return Problem(model, "cross_entropy", list(zip(x.split(8), y.split(8), strict=True)))


@pytest.fixture(scope="module")
def network_trace(network: Problem) -> TraceResult:
    return known_trace(float(dense_hessian(network).trace()))


def test_both_kinds_of_noise_and_both_estimators_have_one_mean(network: Problem, network_trace: TraceResult) -> None:
    options: dict[str, Any] = {"sigmas": [0.2], "trace": network_trace, "rtol": None, "draws": 100}
    rows = [
        noise_gap(network, noise=noise, estimator=estimator, **options).rows[0]
        for noise in NOISES
        for estimator in ("two-sided", "one-sided")
    ]
    best = min(rows, key=lambda row: row.remainder_stderr or math.inf)
    for row in rows:
        assert row.remainder is not None
        assert abs(row.gap - best.gap) < 3.5 * math.hypot(row.stderr, best.stderr)
        assert row.remainder - best.remainder == pytest.approx(  # type: ignore[operator]
            0,
            abs=3.5 * math.hypot(row.remainder_stderr, best.remainder_stderr),  # type: ignore[arg-type]
        )


def test_an_error_of_the_trace_reaches_the_gap_and_spares_the_deviation(
    network: Problem, network_trace: TraceResult
) -> None:
    off = replace(network_trace, value=1.05 * network_trace.value, stderr=0.05 * network_trace.value)
    true, wrong = (noise_gap(network, sigmas=[0.05], trace=trace).rows[0] for trace in (network_trace, off))
    assert wrong.remainder == true.remainder
    assert wrong.stderr == pytest.approx(math.hypot(wrong.predicted_stderr, true.stderr))
    assert abs(wrong.gap - true.gap) < 1.1 * wrong.stderr
    deviation, stderr = true.relative_deviation, true.relative_deviation_stderr
    assert deviation is not None
    assert stderr is not None
    assert wrong.relative_deviation == pytest.approx(deviation / 1.05)
    assert wrong.relative_deviation_stderr == pytest.approx(math.hypot(stderr, deviation * 0.05 / 1.05) / 1.05)


@pytest.mark.parametrize("rtol", [0.02, 0.01, None, 0])
def test_draws_stop_when_the_deviations_are_known(
    rtol: float | None, network: Problem, network_trace: TraceResult
) -> None:
    draws = 300 if rtol else 20
    result = noise_gap(network, sigmas=[0.1, 0.2], rtol=rtol, draws=draws, trace=network_trace)
    worst = max(row.relative_deviation_stderr or math.inf for row in result.rows)
    assert result.converged
    if rtol:
        assert result.draws in (8, 16, 32, 64, 128, 256)
        assert worst < 1.2 * rtol  # the draws' own forms stand for the trace
        if result.draws > 8:
            fewer = noise_gap(network, sigmas=[0.1, 0.2], rtol=None, draws=result.draws // 2, trace=network_trace)
            assert max(row.relative_deviation_stderr or 0 for row in fewer.rows) > 0.7 * rtol
    else:
        assert result.draws == 20
    more = noise_gap(network, sigmas=[0.1, 0.2], rtol=1e-6, draws=20, trace=network_trace)
    assert (more.draws, more.converged) == (20, False)


class Drawn:
    """A sample whose remainders are skewed, as those of a few kinks are: mean 0.1, as the forms' mean is 2."""

    paired = per_batch = True

    def __init__(self, seed: int, batches: int) -> None:
        generator = np.random.default_rng(seed)
        self.all_forms = 2 * generator.chisquare(3, (512, batches)) / 3 / batches
        self.all_remainders = 0.1 * generator.chisquare(1, (512, batches)) / batches
        self.forms = self.all_forms[:0]

    def take(self, sigmas: Sequence[float], draws: int, *, expect: int) -> Steps[None]:
        self.forms = self.all_forms[:draws]
        return
        yield

    def gaps(self, sigma: float) -> np.ndarray:
        return self.remainders(sigma) + self.forms / 2

    def remainders(self, sigma: float) -> np.ndarray:
        return self.all_remainders[: len(self.forms)]


@pytest.mark.parametrize("batches", [1, 2, 6, 40])
def test_stopping_early_leaves_the_mean(batches: int) -> None:
    """Whoever stops on a small error stops on draws that had a small spread; the mean goes with it a little."""
    rtol, runs = 0.01, []
    for seed in range(400):
        sample = Drawn(seed, batches)
        with contextlib.suppress(StopIteration):
            next(taken(sample, [1.0], 512, rtol))  # type: ignore[arg-type]
        runs.append((len(sample.forms), *pooled(sample.remainders(1.0))[:2]))
    counts, means, stderrs = np.array(runs).T
    assert len(set(counts)) > 1
    bias = means.mean() - 0.1  # of a prediction of 1
    assert abs(bias) < (0.5 if batches == 1 else 0.25) * rtol
    assert (np.abs(means - 0.1) < 2 * stderrs).mean() > (0.85 if batches == 1 else 0.9)


def test_time_up_ends_with_the_draws_that_there_are(network: Problem, network_trace: TraceResult) -> None:
    H = HessianOperator(network)
    for noise in NOISES:
        steps = gap_steps(H, sigmas=[0.1, 0.2], rtol=1e-9, noise=noise)
        drawn = run_together(H, {"gap": steps}, deadline=0.0)["gap"]
        assert len(drawn.gaps) == (8 if noise == "per-batch" else 100)
        table = gap_table(drawn, network_trace)
        assert table.draws == len(drawn.gaps)
        assert table.converged == (noise == "shared")


class Floor(torch.autograd.Function):
    """x^2 with a first derivative only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient  # type: ignore[no-any-return]


def test_without_exact_products_there_is_no_remainder() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.linspace(-1, 1, 20, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x * Floor.apply(self.w).sum()

    problem = Problem(Once(), units_loss, [(torch.ones(4, dtype=torch.float64), torch.zeros(4))])
    assert HessianOperator(problem).engine.relative_error is not None
    result = noise_gap(problem, sigmas=[0.1, 0.2, 0.3], draws=50, trace=known_trace(40.0))
    assert (result.draws, result.cost.hvp, result.fit) == (50, 0, None)
    for row in result.rows:
        assert row.remainder is row.remainder_stderr is None
        assert abs(row.gap - 20 * row.sigma**2) < 3.5 * row.stderr
    with pytest.raises(MeasurementError, match=r"sigma: auto .* finite differences: give the sigmas"):
        noise_gap(problem, sigmas="auto", trace=known_trace(40.0))


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
        ({"noise": "loud"}, "noise: found 'loud', expected one of per-batch, shared"),
        ({"rtol": -0.1}, "rtol: found -0.1, expected a number of at least 0"),
        ({"sigmas": [0.1, 0.1]}, "sigma: found 0.1 twice"),
        ({"sigmas": "0.1"}, "sigma: found '0.1', expected positive numbers or auto"),
        ({"sigmas": "auto", "estimator": "one-sided"}, "expected two-sided: sigma auto needs it"),
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
