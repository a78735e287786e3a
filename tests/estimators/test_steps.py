"""Several estimators served by one pass a round: fewer passes over the data, and the same answers as alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from spectra import rotated
from torch import Tensor, nn

from hessdiag.cost import Cost
from hessdiag.curvature import DenseOperator, HessianOperator
from hessdiag.curvature.requests import DisplacedLosses, Products, QuadraticForms, Request, Served
from hessdiag.errors import UsageError
from hessdiag.estimators.density import density_steps
from hessdiag.estimators.eigenvalues import eigenvalue_steps
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import OutOfTime, Steps, run, run_together
from hessdiag.estimators.trace import trace_steps
from hessdiag.problem import Problem

D = torch.float64


class Read:
    """Batches that count how often they are read, in a problem that cannot keep them."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(12, 3, generator=generator, dtype=D)
        self.y = torch.randint(2, (12,), generator=generator)
        self.times = 0
        self.buffer = torch.empty(4, 3, dtype=D)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.times += 1
        for first in range(0, 12, 4):
            self.buffer.copy_(self.x[first : first + 4])  # one buffer, filled again and again: never cached
            yield self.buffer, self.y[first : first + 4]


def small() -> tuple[Problem, Read]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = Read()
    return Problem(model, "cross_entropy", data), data


def estimators(H: HessianOperator) -> dict[str, Steps[Any]]:
    return {
        "eigenvalues": eigenvalue_steps(H, top=2, bottom=1),
        "trace": trace_steps(H, rtol=0.3, method="hutchinson", max_matvecs=64),
        "density": density_steps(H, steps=10, probes=2),
    }


def test_together_as_alone_in_fewer_passes_over_the_data() -> None:
    problem, data = small()
    H = HessianOperator(problem)
    alone, spent = {}, {}
    for name in estimators(H):
        before = data.times
        alone[name] = run(H, estimators(H)[name])
        spent[name] = data.times - before
    before, meter = data.times, problem.meter.read()
    together = run_together(H, estimators(H))
    assert data.times - before == max(spent.values()) < sum(spent.values())
    total = problem.meter.read() - meter
    assert total.hvp == sum(result.cost.hvp for result in together.values())
    for name, result in together.items():
        timeless = replace(result, cost=replace(result.cost, seconds=0))
        assert timeless == replace(alone[name], cost=replace(alone[name].cost, seconds=0))


def test_finished_is_told_as_each_ends() -> None:
    problem, _ = small()
    H = HessianOperator(problem)
    told: list[str] = []
    results = run_together(H, estimators(H), finished=lambda name, result: told.append(name))
    assert sorted(told) == sorted(results)
    assert told.index("trace") < len(told)


@dataclass(frozen=True)
class Sum:
    value: float
    stopped: bool
    cost: Cost = Cost()


def adding(steps: int, vital: int) -> Steps[Sum]:
    total, v = 0.0, torch.ones(4, 1, dtype=D)
    for step in range(steps):
        try:
            product = yield Products(v, vital=step < vital)
        except OutOfTime:
            return Sum(total, True)
        total += float(product.sum())
    return Sum(total, False)


@pytest.mark.parametrize("vital", [0, 2])
def test_the_deadline_ends_what_is_not_vital(vital: int) -> None:
    H = DenseOperator(torch.eye(4, dtype=D))
    result = run_together(H, {"one": adding(5, vital)}, deadline=time.perf_counter() - 1)["one"]
    assert result == Sum(4.0 * vital, True, result.cost)
    assert result.cost.hvp == vital
    assert run(H, adding(5, vital)).value == 20


def test_what_would_come_too_late_is_not_begun() -> None:
    class Slow(DenseOperator):
        def serve(self, requests: Sequence[Request]) -> list[Served]:
            return [replace(one, cost=replace(one.cost, seconds=100 * one.cost.hvp)) for one in super().serve(requests)]

    H = Slow(torch.eye(4, dtype=D))
    assert run_together(H, {"one": adding(5, 0)}, deadline=time.perf_counter() + 99)["one"].value == 4
    assert run_together(H, {"one": adding(5, 0)}, deadline=time.perf_counter() + 1000)["one"].value == 20


def test_one_round_mixes_kinds_of_requests() -> None:
    problem, data = small()
    H = HessianOperator(problem)
    before = data.times
    draw = Probes(H.n, seed=0, stream=Stream.TRACE, dtype=H.dtype)
    V = torch.eye(H.n, dtype=D)
    wanted = [DisplacedLosses(draw, [0], [0.0, 0.1]), Products(V), QuadraticForms(draw, [0, 1])]
    losses, products, forms = (served.answer for served in H.serve(wanted))
    assert data.times - before == 1
    torch.testing.assert_close(losses.at_weights.sum(), torch.tensor(problem.loss_value, dtype=D))
    torch.testing.assert_close(losses.displaced[0, 0], losses.at_weights, rtol=0, atol=0)
    assert float(losses.displaced[0, 1].sum()) != float(losses.at_weights.sum())
    torch.testing.assert_close(products, products.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forms.sums.sum(1), forms.batch_totals.sum(1))
    torch.testing.assert_close(forms.sums, H.quadratic_forms(draw, [0, 1]), rtol=0, atol=0)


def test_some_batches_alone() -> None:
    matrices = [rotated([1.0, 2, 3], seed) for seed in range(3)]
    draw = Probes(3, seed=0, stream=Stream.TRACE, dtype=D)
    forms = DenseOperator(matrices).serve([QuadraticForms(draw, [0], batches=[1])])[0].answer
    v = draw(0, 1)
    torch.testing.assert_close(forms.batch_totals[0], torch.tensor([0, float(v @ matrices[1] @ v), 0], dtype=D))


def test_a_matrix_has_no_losses() -> None:
    draw = Probes(3, seed=0, stream=Stream.GAP)
    with pytest.raises(UsageError, match="found a request DisplacedLosses"):
        DenseOperator(torch.eye(3)).serve([DisplacedLosses(draw, [0], [0.1])])
