"""The noise gap by a compiled model: the same numbers, the model as it was, and words where it cannot be compiled."""

from __future__ import annotations

import functools
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hessdiag import HessianOperator, noise_gap
from hessdiag.errors import MeasurementError
from hessdiag.problem import Problem
from hessdiag.results import GapResult

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's own, of its compiler


def network(*batches: int) -> Problem:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 3)).double()
    data = [(torch.randn(size, 4, dtype=torch.float64), torch.randint(3, (size,))) for size in batches]
    return Problem(model, "cross_entropy", data)


def gap(problem: Problem, **options: Any) -> GapResult:
    return noise_gap(problem, sigmas=[0.05, 0.1], draws=8, **options)


class Backend:
    """Runs what it is given as it is, and counts."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1

        def run(*arguments: Any) -> Any:
            self.calls += 1
            return graph(*arguments)

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    torch.compiler.reset()
    counting = Backend()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    return counting


@pytest.mark.parametrize("estimator", ["two-sided", "one-sided"])
def test_the_same_numbers_by_as_many_passes(backend: Backend, estimator: str) -> None:
    plain = gap(network(5, 5, 3), estimator=estimator)
    assert backend.calls == 0
    compiled = gap(network(5, 5, 3), estimator=estimator, compile=True)
    assert backend.calls == 3 * plain.cost.forward == 3 * compiled.cost.forward
    assert 1 <= backend.graphs <= 2  # one batch is smaller
    for one, other in zip(plain.rows, compiled.rows, strict=True):
        assert other.gap == pytest.approx(one.gap, rel=1e-12)
        assert other.stderr == pytest.approx(one.stderr, rel=1e-9)


@pytest.mark.usefixtures("backend")
def test_the_model_is_as_it_was_and_can_still_be_differentiated_twice() -> None:
    problem = network(5, 5)
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    attributes = set(vars(problem.model))
    product = HessianOperator(problem).matvec(torch.ones(problem.n, dtype=torch.float64))
    gap(problem, compile=True)
    assert set(vars(problem.model)) == attributes
    assert all(torch.equal(value, before[name]) for name, value in problem.model.state_dict().items())
    assert torch.equal(HessianOperator(problem).matvec(torch.ones(problem.n, dtype=torch.float64)), product)


def test_a_model_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        raise RuntimeError("no compiler on this machine")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(
        MeasurementError, match=r"compile: the model cannot be compiled \(.*no compiler.*leave compile out"
    ):
        gap(network(5), compile=True)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_torchs_own_compiler() -> None:
    torch.compiler.reset()
    plain, compiled = gap(network(5, 3)), gap(network(5, 3), compile=True)
    for one, other in zip(plain.rows, compiled.rows, strict=True):
        assert other.gap == pytest.approx(one.gap, rel=1e-10)
