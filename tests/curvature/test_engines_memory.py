"""Where memory runs out a pass is repeated with fewer vectors, and the numbers stay."""

from __future__ import annotations

import pytest
import torch
from oracles.problems import ORACLES
from torch import Tensor

from hessdiag import HessianOperator, Problem
from hessdiag.curvature.engines import Product, ReverseOverReverse, Rows
from hessdiag.curvature.requests import Products, QuadraticForms
from hessdiag.errors import MeasurementError
from hessdiag.problem import Batch

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory")


class Narrow(ReverseOverReverse):
    """Runs out of memory after ``room`` products with one batch."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error, self.failures = room, error, 0

    def linearize(self, problem: Problem, batch: Batch) -> Product:
        product, done = super().linearize(problem, batch), 0

        def counted(v: Tensor) -> Rows:
            nonlocal done
            done += 1
            if done > self.room:
                self.failures += 1
                raise self.error
            return product(v)

        return counted


def operator(room: int, error: Exception = CPU) -> tuple[HessianOperator, Narrow]:
    H = HessianOperator(ORACLES["gelu"].case().problem())
    H.engine = Narrow(room, error)
    return H, H.engine


def vectors(H: HessianOperator, count: int) -> Tensor:
    return torch.randn(H.n, count, dtype=H.dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("error", [CPU, torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
@pytest.mark.parametrize("room", [1, 2, 3, 6])
def test_the_numbers_are_those_of_one_pass_bit_for_bit(room: int, error: Exception) -> None:
    plenty, _ = operator(100)
    H, engine = operator(room, error)
    V = vectors(H, 7)
    expected = plenty.matmat(V)
    assert torch.equal(H.matmat(V), expected)
    failures = engine.failures
    assert failures > 0
    assert torch.equal(H.matmat(V), expected)
    assert engine.failures == failures  # what did not fit is not tried again


def test_those_served_beside_are_served_once() -> None:
    H, _ = operator(4)
    plenty, _ = operator(100)
    draws: list[int | None] = []

    def draw(probe: int, batch: int | None) -> Tensor:
        draws.append(batch)
        return torch.ones(H.n, dtype=H.dtype)

    requests = [Products(vectors(H, 6)), QuadraticForms(draw, [0], per_batch=True), Products(vectors(H, 1))]
    before = plenty.serve(requests)
    batches = H.problem.data_info.batches
    assert len(draws) == batches
    found = H.serve(requests)
    for one, other in zip(found[::2], before[::2], strict=True):
        assert torch.equal(one.answer, other.answer)
    assert torch.equal(found[1].answer.sums, before[1].answer.sums)
    assert [one.cost.hvp for one in found] == [6, 1, 1]


def test_when_one_vector_does_not_fit_the_advice_is_given_and_the_model_left_as_found() -> None:
    H, _ = operator(0)
    H.problem.model.train()
    with pytest.raises(MeasurementError, match=r"out of memory .*lower data\.batch_size"):
        H.matmat(vectors(H, 4))
    assert H.problem.model.training


def test_other_errors_are_not_taken_for_it() -> None:
    H, engine = operator(1, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        H.matmat(vectors(H, 4))
    assert engine.failures == 1
