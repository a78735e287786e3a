"""On a CUDA device: the CPU's float64 numbers on every oracle problem, with vectors drawn once on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles.problems import ORACLES, Case, reference
from torch import Tensor

from hessdiag import HessianOperator, Problem
from hessdiag.errors import MeasurementError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

EVERY = sorted(ORACLES)


def on_gpu(case: Case) -> Problem:
    """The model moves; the batches stay where a user has them, on the CPU."""
    model = copy.deepcopy(case.model).cuda()
    loss = case.loss.cuda() if isinstance(case.loss, torch.nn.Module) else case.loss
    return Problem(model, loss, case.batches(), include=case.include, exclude=case.exclude)


def vectors(n: int) -> Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def error(found: Tensor, expected: Tensor, scale: float) -> float:
    """The largest column's error, in units of ``scale`` times the vector's length."""
    assert found.device.type == "cuda"
    columns = torch.linalg.vector_norm(found.double().cpu() - expected, dim=0)
    lengths = scale * torch.linalg.vector_norm(vectors(len(expected)), dim=0)
    return float((columns / lengths).max()) if scale else float(columns.max())


@pytest.mark.parametrize("name", EVERY)
def test_float64_on_the_gpu(name: str) -> None:
    problem, truth = on_gpu(ORACLES[name].case()), reference(name)
    V = vectors(problem.n)
    expected = truth.hessian @ V
    found = HessianOperator(problem).matmat(V.cuda()).cpu()
    size = float(torch.linalg.vector_norm(expected))
    assert float(torch.linalg.vector_norm(found - expected)) <= 1e-10 * size
    gradient = problem.gradient().cpu()
    assert float(torch.linalg.vector_norm(gradient - truth.gradient)) <= 1e-10 * float(
        torch.linalg.vector_norm(truth.gradient)
    )
    assert problem.loss_value == pytest.approx(truth.loss, rel=1e-10)


@pytest.mark.parametrize("name", EVERY)
def test_float32_on_the_gpu(name: str) -> None:
    problem, truth = on_gpu(ORACLES[name].case().converted(torch.float32)), reference(name)
    V = vectors(problem.n)
    largest = float(torch.linalg.matrix_norm(truth.hessian, 2))
    found = HessianOperator(problem).matmat(V.float().cuda())
    assert found.dtype is torch.float32
    assert error(found, truth.hessian @ V, largest) <= 1e-4


@pytest.mark.parametrize("name", [name for name in EVERY if ORACLES[name].bfloat16])
def test_bfloat16_on_the_gpu(name: str) -> None:
    """Against the float64 numbers at the weights and the data that bfloat16 can hold."""
    case = ORACLES[name].case()
    problem = on_gpu(case.converted(torch.bfloat16))
    exact = case.converted(torch.bfloat16).converted(torch.float64).problem()
    V = vectors(problem.n).bfloat16().double()
    truth = HessianOperator(exact).matmat(torch.eye(exact.n, dtype=torch.float64))
    found = HessianOperator(problem).matmat(V.float().cuda())
    assert found.dtype is torch.float32
    assert error(found, truth @ V, float(torch.linalg.matrix_norm(truth))) <= 0.05
    assert problem.loss_value == pytest.approx(exact.loss_value, rel=0.05)


@pytest.mark.parametrize("name", [name for name in EVERY if not ORACLES[name].bfloat16])
def test_bfloat16_is_refused_where_torch_lacks_an_operation(name: str) -> None:
    with pytest.raises(MeasurementError, match=r"(?i)bfloat16"):
        on_gpu(ORACLES[name].case().converted(torch.bfloat16))


def test_a_gpus_random_state_is_left_as_found() -> None:
    before = torch.cuda.get_rng_state()
    problem = on_gpu(ORACLES["dropout_in_train_mode"].case())
    HessianOperator(problem).matvec(torch.ones(problem.n, dtype=torch.float64, device="cuda"))
    assert torch.equal(torch.cuda.get_rng_state(), before)
