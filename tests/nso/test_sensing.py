"""The matrix-sensing simulation: closed forms against dense Hessians, its steps against the optimizers, its outcome."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hessdiag.cost import Cost, Meter
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.nso import NSO, WPSGD
from hessdiag.nso import sensing as module
from hessdiag.nso.sensing import sensing, simulate
from hessdiag.nso.sensing_problem import MatrixSensing
from hessdiag.simulation import PAPER, SENSING_METHODS, SensingMethod, SensingRun, SensingSettings

SMALL = SensingSettings(dimension=4, rank=1, width=3, examples=9, steps=40, lr=0.01, sigma=0.05)
SHORT = SensingSettings(dimension=10, rank=1, width=10, examples=50, steps=1500, lr=0.005, sigma=0.08)


def small(seed: int = 0, width: int = 3) -> MatrixSensing:
    return MatrixSensing(dimension=4, rank=2, width=width, examples=7, seed=seed)


def dense(problem: MatrixSensing, W: Tensor) -> Tensor:
    return torch.func.hessian(lambda flat: problem.loss(flat.reshape(W.shape)))(W.flatten())


def matrices(problem: MatrixSensing) -> Tensor:
    """A_i, (n, d, d)."""
    return problem._unpack(problem._measurements)


# -- the function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_the_formula(seed: int) -> None:
    problem = small(seed)
    A, X, W = matrices(problem), problem._unpack(problem.truth), problem.start
    assert torch.equal(A, A.mT)
    assert torch.linalg.matrix_rank(X) == 2
    residuals = torch.einsum("iab,ab->i", A, W @ W.T - X)
    torch.testing.assert_close(problem.loss(W), residuals.square().sum() / (2 * 7))
    torch.testing.assert_close(problem.validation_loss(W), (W @ W.T - X).square().sum() / 2)


@pytest.mark.parametrize("seed", range(3))
def test_closed_forms_against_the_dense_hessian(seed: int) -> None:
    """Far from interpolation, where the residuals' part counts."""
    problem = small(seed)
    W = problem.start
    H = dense(problem, W)
    columns = torch.stack([problem.hessian(W)(e.reshape(W.shape)).flatten() for e in torch.eye(12).double()], 1)
    torch.testing.assert_close(columns, H)
    torch.testing.assert_close(problem.gradient(W), torch.func.grad(problem.loss)(W))
    torch.testing.assert_close(problem.trace(W), H.trace())
    assert problem.largest_eigenvalue(W) == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-12)


def test_at_interpolation_lambda_1_is_a_singular_value() -> None:
    problem = small(width=4)
    values, vectors = torch.linalg.eigh(problem._unpack(problem.truth))
    W = vectors * values.clamp(min=0).sqrt()
    assert float(problem.loss(W)) < 1e-25
    jacobian = (2 * matrices(problem) @ W).flatten(1)
    assert problem.largest_eigenvalue(W) == pytest.approx(float(torch.linalg.matrix_norm(jacobian, 2)) ** 2 / 7)
    torch.testing.assert_close(problem.trace(W), jacobian.square().sum() / 7)


def test_several_weights_at_once_are_each_alone() -> None:
    problem = small()
    points = torch.stack([problem.start, 2 * problem.start, problem.start.flip(0)])
    for function in (problem.loss, problem.validation_loss, problem.trace, problem.gradient):
        torch.testing.assert_close(function(points), torch.stack([function(W) for W in points]))


def test_the_validation_loss_is_the_expected_loss_of_a_fresh_measurement() -> None:
    """The measurements are fresh at the start; r is normal there, so the mean of r^2/2 has relative error sqrt(2/n)."""
    n = 20_000
    problem = MatrixSensing(dimension=6, rank=2, width=6, examples=n, seed=0)
    ratio = float(problem.loss(problem.start) / problem.validation_loss(problem.start))
    assert abs(ratio - 1) < 4 * math.sqrt(2 / n)


def test_one_weight() -> None:
    problem = MatrixSensing(dimension=1, rank=1, width=1, examples=3, seed=0)
    assert problem.largest_eigenvalue(problem.start) == pytest.approx(float(dense(problem, problem.start)))


# -- the simulation ------------------------------------------------------------------------------------------


def test_the_steps_are_those_of_the_optimizers() -> None:
    problem = MatrixSensing(dimension=4, rank=1, width=3, examples=9, seed=5)
    *_, (_, found) = module._trained(problem, SMALL, 5, Meter())
    make: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "GD": lambda params: torch.optim.SGD(params, lr=0.01),
        "WP-GD": lambda params: WPSGD(params, sigma=0.05, seed=5, lr=0.01),
        "NSO": lambda params: NSO(params, sigma=0.05, seed=5, lr=0.01),
    }
    for name, W in zip(SENSING_METHODS, found, strict=True):
        weights = nn.Parameter(problem.start.clone())
        optimizer = make[name]([weights])

        def closure(weights: nn.Parameter = weights) -> Tensor:
            weights.grad = None
            loss = problem.loss(weights)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(SMALL.steps):
            optimizer.step(closure)
        torch.testing.assert_close(weights.detach(), W, rtol=1e-9, atol=1e-9)


def test_nso_ends_below_wp_gd_and_that_below_gd() -> None:
    seeds = range(6)
    *_, found = sensing(SHORT, seeds)
    assert found.ordered == len(seeds), [run.methods for run in found.runs if not run.ordered]
    for run in found.runs:
        assert all(method.final_validation_loss < method.validation_loss[0] / 1000 for method in run.methods[1:])
        for method in run.methods:
            trace, (pair,) = method.estimated_trace, method.estimated_eigenvalues.largest
            assert trace.converged
            assert abs(trace.value - method.trace) <= 4 * trace.stderr + 1e-9 * method.trace
            assert abs(pair.value - method.lambda_1) <= pair.residual_norm


def test_noise_leads_to_a_lower_trace() -> None:
    gd, wp, nso = simulate(SHORT, seed=0).methods
    assert nso.trace < gd.trace
    assert wp.trace < gd.trace


def test_one_seed_one_run() -> None:
    first, again, other = (simulate(SMALL, seed) for seed in (1, 1, 2))
    assert without_costs(first) == without_costs(again)
    assert first.methods[0].training_loss != other.methods[0].training_loss


def test_without_noise_all_methods_are_gradient_descent() -> None:
    run = simulate(dataclasses.replace(SMALL, sigma=0.0))
    for method in run.methods[1:]:
        assert method.training_loss == pytest.approx(run.methods[0].training_loss, rel=1e-9)


def test_points_of_the_curves_and_where_they_end() -> None:
    run = simulate(dataclasses.replace(SMALL, steps=501))
    assert run.steps == (*range(0, 501, 3), 501)
    for method in run.methods:
        assert len(method.training_loss) == len(method.validation_loss) == len(run.steps) == 168
        assert method.final_training_loss == pytest.approx(sum(method.training_loss[-17:]) / 17)
        assert method.final_validation_loss == pytest.approx(sum(method.validation_loss[-17:]) / 17)
        assert method.gradients == 501 * (2 if method.name == "NSO" else 1)


def test_each_seed_is_handed_on_when_it_is_finished() -> None:
    first, second = sensing(SMALL, range(3, 5))
    assert (first.status, [run.seed for run in first.runs]) == ("partial", [3])
    assert (second.status, [run.seed for run in second.runs]) == ("complete", [3, 4])
    assert second.runs[0] == first.runs[0]
    assert second.cost.gradient == 2 * 40 * 4
    assert without_costs(second.runs[1]) == without_costs(simulate(SMALL, 4))


def test_the_number_of_threads_is_left_as_it_was() -> None:
    torch.set_num_threads(2)
    try:
        simulate(SMALL)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_divergence_names_method_and_step() -> None:
    with pytest.raises(MeasurementError, match=r"GD diverged: its loss is (inf|nan) after \d+ steps.*lower lr"):
        simulate(dataclasses.replace(SMALL, lr=1.0))


def test_more_than_the_memory_holds_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(MeasurementError, match=r"1000000000 measurements of 4 x 4 take 160\.0 GB, .* lower examples"):
        simulate(dataclasses.replace(SMALL, examples=10**9))


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dimension": 0}, "dimension: found 0, expected a whole number of at least 1"),
        ({"steps": -3}, "steps: found -3"),
        ({"rank": 21}, "rank: found 21, expected at most the dimension, 20"),
        ({"lr": 0.0}, "lr: found 0, expected a positive number"),
        ({"lr": math.nan}, "lr: found nan"),
        ({"sigma": -0.1}, "sigma: found -0.1, expected a number of at least 0"),
        ({"sigma": math.inf}, "sigma: found inf"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SensingSettings().changed(**wrong)


def test_a_new_size_brings_its_width_and_examples() -> None:
    given = {"dimension": 30, "rank": None, "width": None, "examples": None, "lr": 0.001}
    changed = SensingSettings().changed(**given)
    assert (changed.width, changed.examples, changed.lr, changed.sigma) == (30, 300, 0.001, 0.05)
    assert SensingSettings().changed(rank=3, width=5).width == 5
    assert SensingSettings().changed(rank=3, width=5).examples == 300
    assert PAPER.changed(sigma=0.016) == dataclasses.replace(PAPER, sigma=0.016)
    for settings in (PAPER, SensingSettings()):
        assert settings.changed(dimension=settings.dimension, rank=settings.rank) == settings


def without_costs(run: SensingRun) -> SensingRun:
    def free(method: SensingMethod) -> SensingMethod:
        return dataclasses.replace(
            method,
            estimated_trace=dataclasses.replace(method.estimated_trace, cost=Cost()),
            estimated_eigenvalues=dataclasses.replace(method.estimated_eigenvalues, cost=Cost()),
        )

    return dataclasses.replace(run, methods=tuple(map(free, run.methods)))
