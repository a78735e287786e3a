"""The trace by the Gauss-Newton split: right in the mean, honest in its error, sparing with passes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from split_operators import SplitOperator, network_like_split
from torch import Tensor, nn

from hessdiag.curvature import DenseOperator, HessianOperator, dense_hessian
from hessdiag.curvature.requests import Request, Served
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators.steps import run_together
from hessdiag.estimators.trace import trace, trace_steps
from hessdiag.problem import Group, Problem
from hessdiag.results import TraceResult

D = torch.float64
SIZES = (12, 4, 20, 6)


def measured(H: SplitOperator, seeds: int, **options: Any) -> list[TraceResult]:
    return [trace(H, seed=seed, **({"method": "gauss-newton"} | options)) for seed in range(seeds)]


def covered(results: list[TraceResult], truth: float) -> float:
    return float(np.mean([result.interval[0] <= truth <= result.interval[1] for result in results]))


def zscore(samples: list[float], truth: float) -> float:
    return float((np.mean(samples) - truth) / (np.std(samples, ddof=1) / len(samples) ** 0.5))


def test_without_a_diagonal_of_r_all_directions_are_the_trace() -> None:
    H = network_like_split(SIZES, without=range(4))
    result = trace(H, rtol=1e-6, method="gauss-newton")
    assert result.value == pytest.approx(H.trace, rel=1e-12)
    assert (result.stderr, result.matvecs, result.probes) == (0, 0, 0)
    assert result.converged
    assert result.reason.startswith("the residual part has a zero diagonal")
    assert result.gauss_newton is not None
    assert result.gauss_newton.passes == result.cost.gradient == 2 + 9
    low, high = result.interval
    assert low < H.trace < high
    for group, exact in zip(result.groups, exact_groups(H), strict=True):
        assert group.value == pytest.approx(exact, rel=1e-12)
        assert group.stderr == 0


def exact_groups(H: SplitOperator) -> list[float]:
    diagonal = sum((A.diagonal() for A in H._batches), torch.zeros(H.n, dtype=D))
    return [float(part.sum()) for part in torch.split(diagonal, [group.size for group in H.groups])]


@pytest.mark.parametrize("columns", [1, 2])
def test_few_directions_are_taken_at_once(columns: int) -> None:
    H = network_like_split(SIZES, columns=columns, without=range(4))
    result = trace(H, rtol=0.5, method="gauss-newton")
    assert result.cost.gradient == columns
    assert result.value == pytest.approx(H.trace, rel=1e-12)


def test_many_directions_are_drawn_instead() -> None:
    H = network_like_split(SIZES, columns=150, examples=4, without=range(4))
    results = measured(H, 15, rtol=0.1)
    assert all(result.cost.gradient < 75 and result.stderr > 0 and result.converged for result in results)
    assert abs(zscore([result.value for result in results], H.trace)) < 4


@pytest.mark.parametrize(("batches", "rtol"), [(1, 0.03), (4, 0.01), (12, 0.5)])
def test_the_interval_holds_the_truth(batches: int, rtol: float) -> None:
    H = network_like_split(SIZES, batches=batches, seed=batches)
    results = measured(H, 100, rtol=rtol)
    assert covered(results, H.trace) >= 0.92
    assert all(result.converged for result in results)
    error = np.sqrt(np.mean([(result.value - H.trace) ** 2 for result in results]))
    width = np.median([result.interval[1] - result.interval[0] for result in results])
    # With one batch alone the first variance has eight degrees of freedom: Student's quantile is wide there.
    assert width <= (1.5 if batches > 1 else 1.7) * 2 * 1.96 * error


def test_every_group_is_right_within_its_error() -> None:
    H = network_like_split(SIZES, without=[1])
    results = measured(H, 40, rtol=0.02)
    for number, exact in enumerate(exact_groups(H)):
        values = [result.groups[number].value for result in results]
        assert abs(zscore(values, exact)) < 4
        reported = np.sqrt(np.mean([result.groups[number].stderr ** 2 for result in results]))
        assert reported == pytest.approx(np.std(values, ddof=1), rel=0.35)
    for result in results:
        assert sum(group.value for group in result.groups) == pytest.approx(result.value, rel=1e-12)
        assert result.gauss_newton is not None
        assert result.residual is not None
        assert result.gauss_newton.value + result.residual.value == pytest.approx(result.value, rel=1e-12)
        assert result.residual.passes == result.matvecs == result.cost.hvp


def test_probes_live_on_sets_of_tensors_where_that_is_less_work() -> None:
    H = coupled()
    apart = measured(H, 25, rtol=0.01)
    assert all("of tensors" in result.reason and result.converged for result in apart)
    assert abs(zscore([result.value for result in apart], H.trace)) < 4
    together = measured(one_tensor(H), 3, rtol=0.01)
    assert np.mean([r.matvecs for r in apart]) < 0.4 * np.mean([r.matvecs for r in together])
    assert covered(apart, H.trace) >= 0.8


def test_a_network_of_many_tensors_does_not_wait_for_the_pilot() -> None:
    """What the first plan may grow to is less than the pilot wants to see ahead."""
    H = network_like_split((2,) * 140, batches=8, residual=3.0, without=range(1, 140))
    results = measured(H, 5, rtol=0.02)
    assert all(result.converged and "of tensors" in result.reason for result in results)
    assert all(result.matvecs < 30 for result in results)
    assert covered(results, H.trace) >= 0.8


def coupled() -> SplitOperator:
    """R couples tensors 0 and 2, and has blocks of its own there that are small, and none on 1 and 3."""
    H = network_like_split((40, 10, 40, 10), without=[1, 3], residual=0.8)
    for R in H.residuals:
        R[:40, :40] /= 8
        R[50:90, 50:90] /= 8
    return SplitOperator(H.factors, H.residuals, H.groups)


def one_tensor(H: SplitOperator) -> SplitOperator:
    return SplitOperator(H.factors, H.residuals)


def test_where_h_varies_less_than_r_it_is_taken_whole() -> None:
    H = network_like_split((40,), batches=3, residual=0.0)
    cancelling = SplitOperator(
        H.factors, [0.3 * torch.eye(40, dtype=D) - 1.5 * F.flatten(0, 1).T @ F.flatten(0, 1) for F in H.factors]
    )
    results = measured(cancelling, 5, method="auto", rtol=0.015)
    assert {result.method for result in results} == {"hutchinson"}
    assert all("varies more" in result.reason for result in results)
    plain = measured(cancelling, 5, method="hutchinson", rtol=0.015)
    assert np.mean([r.cost.passes for r in results]) <= 1.1 * np.mean([r.cost.passes for r in plain])
    assert all(result.matvecs == result.cost.hvp for result in results)


def test_a_small_budget_is_not_spent_on_the_choice() -> None:
    """R has less variance on twenty tensors apart, H less still, and 64 products are no more than three for each."""
    H = cancelling_between_tensors()
    errors = {}
    for method in ("auto", "hutchinson"):
        results = measured(H, 40, method=method, rtol=1e-3, max_matvecs=64)
        assert all(result.cost.passes <= 64 for result in results)
        errors[method] = np.sqrt(np.mean([(result.value - H.trace) ** 2 for result in results]))
    assert errors["auto"] <= 1.25 * errors["hutchinson"]


def cancelling_between_tensors(tensors: int = 20, size: int = 6, batches: int = 5) -> SplitOperator:
    """H is diagonal but for small blocks on the tensors; G couples tensors, and R takes that back."""
    half = tensors * size // 2
    generator = torch.Generator().manual_seed(1)
    rows = torch.cat([torch.eye(half, dtype=D), torch.eye(half, dtype=D).roll(size, 0)], 1)
    blocks = [torch.randn(size, size, generator=generator, dtype=D) / 10 for _ in range(tensors)]
    within = torch.block_diag(*[block + block.T for block in blocks])
    G = rows.T @ rows
    residual = within - (G - torch.diag(G.diagonal()))
    groups = [Group(f"tensor{i}", size) for i in range(tensors)]
    return SplitOperator([rows.view(half // size, size, -1)] * batches, [residual] * batches, groups)


def test_what_is_left_of_a_budget_goes_where_the_variance_is() -> None:
    H = network_like_split(SIZES, columns=300, examples=2, residual=0.02)
    result = trace(H, method="gauss-newton", rtol=1e-6, max_matvecs=200)
    assert result.gauss_newton is not None
    assert result.residual is not None
    spreads = [part.stderr * part.passes**0.5 for part in (result.gauss_newton, result.residual)]
    best = sum(spreads) ** 2 / 200  # of all ways to share the passes
    assert result.stderr**2 <= 1.15 * best


@pytest.mark.parametrize("maximum", [4, 5, 10, 40, 70])
@pytest.mark.parametrize(
    "H", [network_like_split(SIZES, residual=3.0), cancelling_between_tensors(batches=1)], ids=["random", "cancelling"]
)
def test_the_budget_holds_gradients_and_products(H: SplitOperator, maximum: int) -> None:
    for seed in range(10):
        result = trace(H, method="gauss-newton", rtol=1e-6, max_matvecs=maximum, seed=seed)
        assert result.cost.gradient + result.cost.hvp <= maximum
        assert not result.converged
        assert result.interval[0] < result.value < result.interval[1]


def test_too_few_passes_for_two_parts() -> None:
    H = network_like_split(SIZES)
    with pytest.raises(UsageError, match="expected at least 4 for method gauss-newton"):
        trace(H, method="gauss-newton", max_matvecs=3)
    result = trace(H, max_matvecs=3)
    assert result.method == "hutchinson"
    assert "max_matvecs 3 is too few" in result.reason


def test_no_split() -> None:
    with pytest.raises(UsageError, match="found gauss-newton, but a matrix is known as a whole alone"):
        trace(DenseOperator(torch.eye(3)), method="gauss-newton")
    assert "no Gauss-Newton split: a matrix" in trace(DenseOperator(torch.eye(3))).reason


def test_a_batch_in_which_the_loss_is_not_convex_ends_the_split() -> None:
    """Only the last batch shows it, and those who share the pass with the draws are served all the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    targets = [torch.full((6, 3), 1 / 3, dtype=D), torch.full((6, 3), -0.1, dtype=D)]
    problem = Problem(model, "cross_entropy", [(torch.randn(6, 3, dtype=D), t) for t in targets])
    H = HessianOperator(problem)
    with pytest.raises(MeasurementError, match=r"not convex in the outputs of batch 1: .* below 0"):
        trace(H, method="gauss-newton")
    result = trace(H, rtol=0.3)
    assert result.method != "gauss-newton"
    assert result.reason.startswith("no Gauss-Newton split: the loss is not convex in the outputs of batch 1")
    low, high = result.interval
    assert low < float(dense_hessian(problem).trace()) < high


def test_a_value_of_zero_is_no_endless_work() -> None:
    H = network_like_split(SIZES)
    nothing = SplitOperator([0 * F for F in H.factors], [0 * R for R in H.residuals], H.groups)
    result = trace(nothing)
    assert (result.value, result.interval, result.converged) == (0, (0, 0), True)
    traceless = SplitOperator([0 * F for F in H.factors], [_traceless(R) for R in H.residuals], H.groups)
    result = trace(traceless, max_matvecs=100)
    assert not result.converged
    assert result.interval[0] < 0 < result.interval[1]
    assert result.cost.passes <= 100


def _traceless(R: Tensor) -> Tensor:
    return R - R.trace() / len(R) * torch.eye(len(R), dtype=D)


def test_out_of_time_ends_with_what_there_is() -> None:
    H = network_like_split(SIZES)
    steps = {"trace": trace_steps(H, method="gauss-newton", rtol=1e-4)}
    result = run_together(H, steps, deadline=time.perf_counter() - 1)["trace"]
    assert not result.converged
    assert (result.cost.gradient, result.cost.hvp) == (2, 3)
    assert result.interval[0] < H.trace < result.interval[1]


def test_the_pilot_is_not_begun_where_the_time_ends_before_it_pays() -> None:
    """Thirty passes of time in all; on sets of tensors each set would take some of them."""
    H = Slow(cancelling_between_tensors(), seconds=0.01)
    steps = {"trace": trace_steps(H, method="gauss-newton", rtol=1e-6)}
    result = run_together(H, steps, deadline=time.perf_counter() + 30 * 0.01)["trace"]
    assert not result.converged
    assert "of tensors" not in result.reason
    assert 10 <= result.cost.passes <= 35  # not given up where one large request did not fit
    assert result.interval[0] < H.trace < result.interval[1]


class Slow(SplitOperator):
    """Every pass takes so many seconds."""

    def __init__(self, fast: SplitOperator, seconds: float) -> None:
        super().__init__(fast.factors, fast.residuals, fast.groups)
        self.seconds = seconds

    def _served(self, request: Request) -> Served:
        began = time.perf_counter()
        served = super()._served(request)
        time.sleep(max(request.passes * self.seconds - (time.perf_counter() - began), 0))
        return Served(served.answer, replace(served.cost, seconds=time.perf_counter() - began))


# -- networks ----------------------------------------------------------------------------------------------


def small(activation: nn.Module, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 6), activation, nn.Linear(6, 4)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=D))
    x = torch.randn(60, 5, generator=generator, dtype=D)
    y = torch.randint(4, (60,), generator=generator)
    return Problem(model, "cross_entropy", list(zip(x.split(14), y.split(14), strict=True)))


def test_a_rectifier_network_is_exact() -> None:
    problem = small(nn.ReLU())
    dense = dense_hessian(problem)
    result = trace(HessianOperator(problem), rtol=1e-3)
    assert result.method == "gauss-newton"
    assert result.reason.startswith("the loss is convex in the outputs; the residual part has a zero diagonal")
    assert result.value == pytest.approx(float(dense.trace()), rel=1e-10)
    parts = torch.split(dense.diagonal(), [group.size for group in problem.groups])
    assert [group.value for group in result.groups] == pytest.approx([float(part.sum()) for part in parts], rel=1e-10)


def test_a_smooth_network_is_right_within_its_error() -> None:
    problem = small(nn.GELU())
    H, dense = HessianOperator(problem), dense_hessian(problem)
    results = [trace(H, rtol=0.5, seed=seed) for seed in range(15)]
    truth = float(dense.trace())
    assert abs(zscore([result.value for result in results], truth)) < 4
    assert covered(results, truth) >= 0.9
    parts = torch.split(dense.diagonal(), [group.size for group in problem.groups])
    for number, part in enumerate(parts):
        values = [result.groups[number].value for result in results]
        assert np.ptp(values) == 0 or abs(zscore(values, float(part.sum()))) < 4


def test_a_float32_interval_knows_its_rounding() -> None:
    problem = small(nn.ReLU())
    model = nn.Sequential(
        *(nn.Linear(m.in_features, m.out_features) if isinstance(m, nn.Linear) else m for m in problem.model)
    )  # type: ignore[attr-defined]
    model.load_state_dict({name: tensor.float() for name, tensor in problem.model.state_dict().items()})
    exact = trace(HessianOperator(Problem(model.double(), "cross_entropy", rows(D)))).value
    low, high = trace(HessianOperator(Problem(model.float(), "cross_entropy", rows(torch.float32)))).interval
    assert low <= exact <= high


def rows(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 5, generator=generator, dtype=torch.float32).to(dtype)
    return [(x, torch.randint(4, (60,), generator=generator))]


@pytest.mark.parametrize("network", [nn.ReLU(), nn.GELU()], ids=["relu", "gelu"])
def test_a_seed_is_a_measurement(network: nn.Module) -> None:
    H = HessianOperator(small(network))
    first, second = (trace(H, rtol=0.4, seed=4) for _ in range(2))
    assert replace(first, cost=second.cost) == second
