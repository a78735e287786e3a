"""What holds for all estimators: the operator's face is enough, the results are plain Python and repeatable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hessdiag.curvature import DenseOperator, HessianOperator, SymmetricOperator, dense_hessian
from hessdiag.estimators.density import spectral_density
from hessdiag.estimators.eigenvalues import eigenvalues
from hessdiag.estimators.noise_gap import noise_gap
from hessdiag.estimators.trace import trace
from hessdiag.problem import Problem

Measure = Callable[[SymmetricOperator, int], Any]

MEASURES: dict[str, Measure] = {
    "lanczos": lambda H, seed: eigenvalues(H, top=3, bottom=2, seed=seed),
    "power": lambda H, seed: eigenvalues(H, top=1, bottom=1, method="power", rtol=1e-2, seed=seed),
    "trace": lambda H, seed: trace(H, method="hutchinson", max_matvecs=40, seed=seed),
    "density": lambda H, seed: spectral_density(H, steps=15, probes=2, points=50, seed=seed),
}


def problem_of(data: list[Any]) -> Problem:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Problem(model, "cross_entropy", data)


@pytest.fixture(scope="module")
def problem() -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(23, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (23,), generator=generator)
    return problem_of(list(zip(x.split(9), y.split(9), strict=True)))


@pytest.fixture(scope="module")
def dense(problem: Problem) -> DenseOperator:
    parts = [problem_of([(batch.inputs, batch.targets)]) for batch in problem.batches()]
    return DenseOperator([dense_hessian(p) * (p.weight / problem.weight) for p in parts], problem.groups)


def assert_close(one: Any, other: Any) -> None:
    """Equal in structure, and in numbers to 1e-8; times apart."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            if field.name != "seconds":
                assert_close(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-8)
    else:
        assert one == other


def assert_plain(value: Any) -> None:
    """Frozen records, tuples, and Python's own numbers (numpy's float64 is a float by inheritance: refused)."""
    if dataclasses.is_dataclass(value):
        assert value.__dataclass_params__.frozen  # type: ignore[attr-defined]
        for field in dataclasses.fields(value):
            assert_plain(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in (int, float, bool, str, type(None)), (type(value), value)


def without_seconds(result: Any) -> Any:
    return dataclasses.replace(result, cost=dataclasses.replace(result.cost, seconds=0.0))


@pytest.mark.parametrize("name", MEASURES)
def test_a_hessian_and_its_dense_matrix_give_the_same(name: str, problem: Problem, dense: DenseOperator) -> None:
    assert_close(MEASURES[name](HessianOperator(problem), 0), MEASURES[name](dense, 0))


@pytest.mark.parametrize("name", MEASURES)
def test_two_runs_are_identical(name: str, problem: Problem) -> None:
    first, second = (without_seconds(MEASURES[name](HessianOperator(problem), 3)) for _ in range(2))
    assert first == second
    assert first != dataclasses.replace(without_seconds(MEASURES[name](HessianOperator(problem), 4)), seed=3)


@pytest.mark.parametrize("name", MEASURES)
def test_chunks_do_not_change_the_numbers(name: str, problem: Problem) -> None:
    one, two = (without_seconds(MEASURES[name](HessianOperator(problem, chunk=chunk), 0)) for chunk in (1, None))
    assert one == two


@pytest.mark.parametrize("name", MEASURES)
def test_the_global_generator_neither_matters_nor_moves(name: str, dense: DenseOperator) -> None:
    first = without_seconds(MEASURES[name](dense, 0))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert without_seconds(MEASURES[name](dense, 0)) == first
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", MEASURES)
def test_results_are_plain_python(name: str, problem: Problem, dense: DenseOperator) -> None:
    for H in (HessianOperator(problem), dense, DenseOperator(torch.zeros(4, 4)), DenseOperator(torch.eye(4))):
        assert_plain(MEASURES[name](H, 0) if H.n > 4 or name != "lanczos" else eigenvalues(H, top=2, bottom=1))


def test_the_gap_is_plain_python(problem: Problem) -> None:
    measured = trace(HessianOperator(problem), max_matvecs=4)
    assert_plain(noise_gap(problem, draws=3, trace=measured))


@pytest.mark.parametrize("name", MEASURES)
def test_cost_is_what_the_meter_counted(name: str, problem: Problem) -> None:
    H = HessianOperator(problem)
    before = H.meter.read()
    result = MEASURES[name](H, 0)
    spent = H.meter.read() - before
    assert (result.cost.forward, result.cost.gradient, result.cost.hvp) == (spent.forward, spent.gradient, spent.hvp)
    assert result.cost.hvp == getattr(result, "matvecs", 30)
