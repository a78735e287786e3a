"""Several products at once: where, and that the numbers are those of one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hessdiag.curvature.engines import ReverseOverReverse
from hessdiag.curvature.several import SharedProduct, each_product
from hessdiag.problem import Problem

D = torch.float64


def problem(model: nn.Module, shape: tuple[int, ...] = (6,), loss: str = "cross_entropy") -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, *shape, generator=generator, dtype=D)
    y = torch.rand(9, 3, generator=generator, dtype=D)
    targets = y.argmax(1) if loss == "cross_entropy" else y
    torch.manual_seed(0)
    return Problem(model.double(), loss, [(x, targets)])


def linearized(p: Problem) -> object:
    with p.measuring():
        return ReverseOverReverse().linearize(p, next(iter(p.batches())))


ACTIVATIONS = [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(), nn.ELU()]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce_with_logits"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_linear_layers_share(activation: nn.Module, loss: str) -> None:
    p = problem(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), activation, nn.Linear(5, 3)), loss=loss)
    with p.measuring():
        product = ReverseOverReverse().linearize(p, next(iter(p.batches())))
        assert isinstance(product, SharedProduct)
        V = torch.randn(11, p.n, dtype=D)  # more than go together
        found = list(each_product(product, V))
        assert torch.equal(torch.stack([v for v, _ in found]), V)
        shared = torch.stack([p.flatten(rows) for _, rows in found])
        alone = torch.stack([p.flatten(product(v)) for v in V])
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4)),
        (nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 3)), (2, 6)),
        (nn.Sequential(nn.Linear(6, 30_000), nn.ReLU(), nn.Linear(30_000, 3)), (6,)),
    ],
    ids=["convolution", "attention", "large"],
)
def test_others_do_not(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert not isinstance(linearized(problem(model, shape)), SharedProduct)


def test_an_operation_without_batching_rule_goes_one_by_one() -> None:
    def refuses(V: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError("Batching rule not implemented for aten::something")

    product = SharedProduct(lambda v: [2 * v], refuses)
    assert [rows[0].tolist() for _, rows in each_product(product, torch.eye(2))] == [[2, 0], [0, 2]]  # type: ignore[union-attr]


def test_no_memory_is_no_missing_rule() -> None:
    def too_much(V: torch.Tensor) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(each_product(SharedProduct(lambda v: [v], too_much), torch.eye(2)))
