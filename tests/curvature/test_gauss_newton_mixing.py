"""Examples that meet each other, or change places, in a batch: found out also where their outputs hide it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from hessdiag import HessianOperator, Problem, trace
from hessdiag.curvature.dense import dense_hessian
from hessdiag.curvature.per_example import OneByOne, PerExample
from hessdiag.curvature.requests import OutputDraws, ResidualDiagonal

LAYERS = "layers' inputs and output gradients"


class TwoLayers(nn.Module):
    """A function of the layers ``a`` (3, 3) and ``b`` (3, outputs) and the input."""

    def __init__(self, function: Callable[[TwoLayers, Tensor], Tensor], outputs: int = 3) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, outputs)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def centred(net: TwoLayers, x: Tensor) -> Tensor:
    """Outputs about 3000, as of a regression on years: to their size they are the same without the batch."""
    return net.b(net.a(x) - net.a(x).mean(0)) + 3000


def sorted_within(net: TwoLayers, x: Tensor) -> Tensor:
    order = x.square().sum(1).argsort()
    return net.b(torch.tanh(net.a(torch.tanh(net.a(x[order]))[order.argsort()])))


def by_experts(net: TwoLayers, x: Tensor) -> Tensor:
    """Tokens with a positive first entry go to layer a."""
    tokens = x.flatten(0, 1)
    chosen = tokens[:, 0] > 0
    out = torch.zeros_like(tokens)
    out[chosen] = torch.tanh(net.a(tokens[chosen]))
    return net.b(out.unflatten(0, x.shape[:2]).sum(1))


def last_of_each(net: TwoLayers, x: Tensor) -> Tensor:
    lengths = (x[:, :, 0] > 0).sum(1)
    return net.b(torch.tanh(net.a(x))[torch.arange(len(x)), lengths])


def test_a_batch_that_meets_behind_large_outputs() -> None:
    """R is zero here: the trace of H is that of G."""
    net = TwoLayers(centred, outputs=1)
    net.a.requires_grad_(False)
    problem = Problem(net, "mse", [(torch.randn(6, 3), 3000 + torch.randn(6, 1))])
    H = HessianOperator(problem)
    (served,) = H.serve([OutputDraws(0, (), exact=True)])
    assert H.split.how.startswith("whole batches")
    assert float(served.answer.sums.sum()) == pytest.approx(float(dense_hessian(problem).trace()), rel=1e-4)

    net.a.requires_grad_(True)
    H = HessianOperator(Problem(net, "mse", [(torch.randn(6, 3), 3000 + torch.randn(6, 1))]))
    assert H.split.how.startswith("whole batches")


def batches(function: Callable[[TwoLayers, Tensor], Tensor]) -> list[Tensor]:
    """In the first one every example has its own place, in the second one not."""
    if function is sorted_within:
        x = torch.randn(2, 6, 3)
        return [x[0][x[0].square().sum(1).argsort()], x[1]]
    x = torch.randn(2, 4, 2, 3)
    first, second = x.abs()
    first[:, 1, 0] *= -1
    second[2:, :, 0] *= -1
    return [first, second]


@pytest.mark.parametrize("function", [sorted_within, by_experts])
def test_examples_that_change_places_with_the_data(function: Callable[[TwoLayers, Tensor], Tensor]) -> None:
    data = [(x.double(), torch.randint(3, (len(x),))) for x in batches(function)]
    problem = Problem(TwoLayers(function).double(), "cross_entropy", data)
    ways = PerExample(problem)
    with problem.measuring():
        for batch in problem.batches():
            way = ways.linearize(batch)
            direction = torch.randn(way.outputs.shape, dtype=torch.float64)
            alone = OneByOne(problem, batch, way.outputs).squares(direction)
            assert torch.allclose(way.squares(direction), alone, rtol=1e-12)
    assert ways.how != LAYERS


def test_each_example_s_own_token_is_no_other_place() -> None:
    problem = Problem(TwoLayers(last_of_each), "cross_entropy", [(torch.randn(5, 8, 3), torch.randint(3, (5,)))])
    assert HessianOperator(problem).split.how == LAYERS


def test_a_pruned_model_has_a_dense_hessian() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    prune.random_unstructured(net[0], "weight", 0.5)
    x = torch.randn(5, 3)
    net(x)
    problem = Problem(net, "mse", [(x, torch.randn(5, 2))])
    H = dense_hessian(problem)
    v = torch.randn(problem.n)
    assert torch.allclose(HessianOperator(problem).matvec(v), (H @ v.double()).float(), rtol=1e-4, atol=1e-5)


class Branches(nn.Module):
    """Rare examples go through a smooth branch, the others through a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.common, self.rare, self.head = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.where(x[:, :1] > 0, torch.relu(self.common(x)), torch.tanh(self.rare(x))))


@pytest.mark.parametrize("rare", [3, 0])
def test_a_branch_that_the_steepest_examples_do_not_take(rare: int) -> None:
    x, y = torch.randn(24, 3), torch.randn(24, 2)
    x[:, 0] = x[:, 0].abs()
    x[:rare, 0] *= -1
    y[rare:] *= 10
    problem = Problem(Branches(), "mse", [(x[:12], y[:12]), (x[12:], y[12:])])
    (served,) = HessianOperator(problem).serve([ResidualDiagonal(0)])
    # Of a branch that no example takes nothing is known, so it is not said to be straight.
    assert problem.groups[served.answer].name.startswith("rare")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exact_trace_is_as_right_as_the_model_s_precision(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)).to(dtype)
    problem = Problem(net, "mse", [(torch.randn(40, 6), torch.randn(40, 1))])
    low, high = trace(HessianOperator(problem)).interval
    true = float(dense_hessian(problem).trace())
    assert low <= true <= high
    assert high - low <= 6 * torch.finfo(dtype).eps * true
