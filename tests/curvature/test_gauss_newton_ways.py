"""Squared gradient norms of single examples: every way the same, and wrong layouts found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessdiag import HessianOperator, Problem
from hessdiag.curvature.per_example import Layers, OneByOne, PerExample, Vectorised, WholeBatch
from hessdiag.curvature.requests import OutputDraws, ResidualDiagonal

N, T, WIDTH = 5, 4, 6
LAYERS = "layers' inputs and output gradients"


class Net(nn.Module):
    """A function of its layers and the input, and a head of three classes."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self, x).flatten(1))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def chain(*layers: nn.Module) -> Net:
    return Net(lambda net, x: torch.tanh(net.body(x)), body=nn.Sequential(*layers))


def add_in_place(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    y += net.shift
    return F.relu_(y)


# What comes in for each example, and a network; the layers' way takes all of their weights.
NETS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "strided groups": ((4, 7), lambda: chain(nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2))),
    "dilated, same": ((2, 6, 5), lambda: chain(nn.Conv2d(2, 3, (3, 2), padding="same", dilation=(1, 2)))),
    "depthwise": ((3, 5, 5), lambda: chain(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6))),
    "three dimensions": ((2, 4, 4, 4), lambda: chain(nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(0, 1, 0)))),
    "reflected": ((2, 5, 5), lambda: chain(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"))),
    "transposed": (
        (4, 3, 3),
        lambda: chain(nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2)),
    ),
    "norms": ((4, 6), lambda: chain(nn.GroupNorm(2, 4), nn.LayerNorm((4, 6)), nn.RMSNorm(6), nn.BatchNorm1d(4))),
    "tokens by a layer": ((T, WIDTH), lambda: chain(nn.Linear(WIDTH, 40), nn.Tanh(), nn.Linear(40, 2))),
    "laid end to end": (
        (T, WIDTH),
        lambda: Net(
            lambda net, x: torch.addmm(net.b, x.reshape(-1, WIDTH), net.W).view(*x.shape[:2], 3),
            W=weight(WIDTH, 3),
            b=weight(3),
        ),
    ),
    "pictures of a film": (
        (T, 2, 4, 4),
        lambda: Net(
            lambda net, x: net.n(net.c(x.flatten(0, 1))).unflatten(0, x.shape[:2]),
            c=nn.Conv2d(2, 4, 2, groups=2),
            n=nn.GroupNorm(2, 4),
        ),
    ),
    "positions": (
        (T, WIDTH),
        lambda: Net(
            lambda net, x: torch.tanh(x + net.p[:, : x.shape[1]] + net.e(torch.arange(x.shape[1]))) * net.scale,
            p=weight(1, T + 2, WIDTH),
            e=nn.Embedding(T + 1, WIDTH),
            scale=weight(WIDTH),
        ),
    ),
    "class token": (
        (T, WIDTH),
        lambda: Net(
            lambda net, x: torch.tanh(net.a(torch.cat([net.c.expand(len(x), -1, -1), x], 1))),
            c=weight(1, 1, WIDTH),
            a=nn.Linear(WIDTH, 2),
        ),
    ),
    "transposed weight": ((WIDTH,), lambda: Net(lambda net, x: torch.tanh(x @ net.W.T), W=weight(3, WIDTH))),
    "vector": ((T, WIDTH), lambda: Net(lambda net, x: torch.tanh(x @ net.w), w=weight(WIDTH))),
    "twice, and its transpose": (
        (T, WIDTH),
        lambda: Net(lambda net, x: torch.tanh(net.a(torch.tanh(net.a(x)))) @ net.a.weight, a=nn.Linear(WIDTH, WIDTH)),
    ),
    "in place": ((WIDTH,), lambda: Net(add_in_place, a=nn.Linear(WIDTH, 4), shift=weight(4))),
    "weight norm": (
        (WIDTH,),
        lambda: chain(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 4)), nn.Linear(4, 4)),
    ),
}


def made(name: str, sizes: tuple[int, ...] = (N, 2)) -> Problem:
    torch.manual_seed(sum(map(ord, name)))
    shape, make = NETS[name]
    model = make()
    model(torch.randn(2, *shape))  # the head's width
    return problem(model, *[torch.randn(size, *shape) for size in sizes])


def problem(model: nn.Module, *inputs: Tensor) -> Problem:
    batches = [(x.double(), torch.randint(3, (len(x),))) for x in inputs]
    return Problem(model.double(), "cross_entropy", batches)


def directions(outputs: Tensor) -> Tensor:
    return torch.randn(outputs.shape, dtype=outputs.dtype, generator=torch.Generator().manual_seed(1))


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", NETS)
def test_layers_give_what_batches_of_one_give(name: str) -> None:
    measured = made(name)
    ways = PerExample(measured)
    with measured.measuring():
        for batch in measured.batches():
            way = ways.linearize(batch)
            direction = directions(way.outputs)
            alone = OneByOne(measured, batch, way.outputs).squares(direction)
            assert difference(way.squares(direction), alone) <= 1e-12
            assert difference(way.squares(2 * direction), 4 * alone) <= 1e-12  # the graph serves again
    assert ways.how == LAYERS


@pytest.mark.parametrize("name", ["strided groups", "positions", "laid end to end", "twice, and its transpose"])
def test_every_way_is_the_same(name: str) -> None:
    measured = made(name, sizes=(1,))
    with measured.measuring():
        (batch,) = measured.batches()
        outputs = measured.outputs(batch)
        direction = directions(outputs)
        layers = Layers(measured, batch).squares(direction)
        for way in (Vectorised(measured, batch, outputs), OneByOne(measured, batch, outputs)):
            assert difference(way.squares(direction), layers) <= 1e-12
        assert difference(WholeBatch(measured, batch).squares(direction), layers) <= 1e-12


def test_frozen_parameters_and_dicts_with_padding() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 3, padding_idx=0), nn.Linear(3, 3)
            self.mix = nn.Linear(3, 3).requires_grad_(False)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            h = torch.tanh(self.mix(self.embed(ids))) * mask[:, :, None]
            return self.head(h.sum(1) / mask.sum(1, keepdim=True))

    torch.manual_seed(0)
    mask = (torch.arange(T) < torch.tensor([4, 2, 3, 1, 4])[:, None]).long()
    x = {"ids": torch.randint(1, 7, (N, T)) * mask, "mask": mask}
    measured = Problem(Masked().double(), "cross_entropy", [(x, torch.randint(3, (N,)))])
    ways = PerExample(measured)
    with measured.measuring():
        (batch,) = measured.batches()
        way = ways.linearize(batch)
        direction = directions(way.outputs)
        assert difference(way.squares(direction), OneByOne(measured, batch, way.outputs).squares(direction)) <= 1e-12
    assert (ways.how, way.squares(direction).shape) == (LAYERS, (N, 3))


def time_first(net: Any, x: Tensor) -> Tensor:
    return torch.tanh(net.a(x.transpose(0, 1))).transpose(0, 1)


def time_first_end_to_end(net: Any, x: Tensor) -> Tensor:
    y = net.a(x.transpose(0, 1).reshape(-1, WIDTH))
    return torch.tanh(y).view(x.shape[1], x.shape[0], -1).transpose(0, 1)


def mixing(net: Any, x: Tensor) -> Tensor:
    return torch.tanh(net.a(x - x.mean(0)))


def for_one_batch_size(net: Any, x: Tensor) -> Tensor:
    return torch.tanh(net.a(x.reshape(N, T, WIDTH)))


def recurrent(net: Any, x: Tensor) -> Tensor:
    return net.a(x)[0]


LINEAR = (nn.Linear, (WIDTH, 2))
# Networks that lay their examples out in another way, the batches' sizes, and what is taken for them.
ODD = {
    "as many steps as examples": (time_first, LINEAR, (T,), "gradients of single examples"),
    "as many steps in a later batch": (time_first, LINEAR, (3, T), "vmap for a.weight, a.bias; gradients of single"),
    "steps end to end": (time_first_end_to_end, LINEAR, (N,), "gradients of single examples"),
    "mixed": (mixing, LINEAR, (N,), "whole batches"),
    "for one batch size": (for_one_batch_size, LINEAR, (N,), "whole batches"),
    "no rule and no vmap": (recurrent, (nn.LSTM, (WIDTH, 2, 1, True, True)), (N,), "batches of one example"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_lies_otherwise_is_found_out(name: str) -> None:
    function, (layer, options), sizes, how = ODD[name]
    torch.manual_seed(0)
    model = Net(function, a=layer(*options))
    model(torch.randn(sizes[0], T, WIDTH))
    measured = problem(model, *[torch.randn(size, T, WIDTH) for size in sizes])
    ways = PerExample(measured)
    with measured.measuring():
        for batch in measured.batches():
            way = ways.linearize(batch)
            direction = directions(way.outputs)
            right = WholeBatch if how == "whole batches" else OneByOne
            args = () if right is WholeBatch else (way.outputs,)
            expected = right(measured, batch, *args).squares(direction)  # type: ignore[operator]
            assert difference(way.squares(direction), expected) <= 1e-12
    assert how in ways.how


def test_whole_batches_are_unbiased_and_exact_row_by_row() -> None:
    torch.manual_seed(0)
    model = Net(mixing, a=nn.Linear(WIDTH, 2))
    model(torch.randn(2, T, WIDTH))
    H = HessianOperator(problem(model, torch.randn(3, T, WIDTH), torch.randn(2, T, WIDTH)))
    J, trace = list(H.problem.parameters.values()), 0.0
    with H.problem.measuring():
        for batch in H.problem.batches():
            outputs = H.problem.outputs(batch)
            root = H.gauss_newton.loss.root(outputs, batch.targets)
            for k in range(2):
                for row in range(len(outputs)):
                    gradients = torch.autograd.grad(outputs[row], J, root.column(k)[row], retain_graph=True)
                    trace += sum(float(g.square().sum()) for g in gradients)
    exact, drawn = H.serve([OutputDraws(0, (), exact=True), OutputDraws(0, range(50))])
    assert float(exact.answer.sums.sum()) == pytest.approx(trace / 5, rel=1e-12)
    assert H.split.columns == 6
    mean, stderr = float(drawn.answer.sums.sum(1).mean()), float(drawn.answer.variance[-1]) ** 0.5
    assert abs(mean - trace / 5) <= 4 * stderr


def test_the_residual_search_on_a_model_for_one_batch_size() -> None:
    torch.manual_seed(0)
    sizes = 12, 12

    def fixed(net: Any, x: Tensor) -> Tensor:
        return torch.tanh(net.a(x.reshape(12, T, WIDTH)))

    model = Net(fixed, a=nn.Linear(WIDTH, 2))
    model(torch.randn(12, T, WIDTH))
    H = HessianOperator(problem(model, *[torch.randn(size, T, WIDTH) for size in sizes]))
    assert H.serve([ResidualDiagonal(0)])[0].answer == 0


def test_nothing_is_left_on_the_data_or_the_model() -> None:
    measured = made("positions")
    before = {name: p.detach().clone() for name, p in measured.model.named_parameters()}
    inputs = [batch.inputs for batch in measured.batches()]
    HessianOperator(measured).serve([OutputDraws(0, range(2))])
    assert all(not vars(x) for x in inputs)
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in measured.model.named_parameters())
