"""Operations in closed form: the products are those of torch's own, whose dense Hessian knows nothing of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles.models import Lambda
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _len_torch_function_stack
from torch.utils.checkpoint import checkpoint

from hessdiag import HessianOperator, Problem
from hessdiag.curvature import dense_hessian
from hessdiag.curvature.engines import ReverseOverReverse
from hessdiag.curvature.operations import ClosedForms

D = torch.float64


class Flat(nn.Module):
    """Bent before and after, so that every derivative of what is between takes part."""

    def __init__(self, channels: int, *layers: nn.Module) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x * self.scale.view(-1, *[1] * (x.ndim - 2)))
        return torch.sin(self.layers(x)).flatten(1)[:, :3]


def statistics(norm: Any) -> Any:
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias)
    return norm


def layer_norm(*args: Any, **kwargs: Any) -> nn.LayerNorm:
    norm = nn.LayerNorm(*args, **kwargs)
    nn.init.uniform_(norm.weight, 0.5, 2)
    return norm


# The layer, the shape of an input, and the node that shows that it was replaced.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "batch norm, 1d": (lambda: statistics(nn.BatchNorm1d(3)), (3,), "Addcmul"),
    "batch norm, 1d of sequences": (lambda: statistics(nn.BatchNorm1d(2)), (2, 3), "Addcmul"),
    "batch norm, 2d": (lambda: statistics(nn.BatchNorm2d(2)), (2, 2, 2), "Addcmul"),
    "batch norm, 3d, no weights": (lambda: statistics(nn.BatchNorm3d(2, affine=False)), (2, 1, 2, 2), "Addcmul"),
    "layer norm": (lambda: layer_norm(5), (2, 5), "_LayerNorm"),
    "layer norm over two axes, no bias": (lambda: layer_norm((2, 3), bias=False), (2, 3), "_LayerNorm"),
    "gelu": (nn.GELU, (2, 3), "_Activation"),
    "gelu by tanh": (lambda: nn.GELU(approximate="tanh"), (2, 3), "_Activation"),
    "silu": (nn.SiLU, (2, 3), "_Activation"),
}

# What is left to torch, and still right.
LEFT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv2d, strided so that an edge is left over": (lambda: nn.Conv2d(2, 2, 2, stride=2), (2, 5, 4)),
    "layer norm without weights": (lambda: nn.LayerNorm(5, elementwise_affine=False), (2, 5)),
    "group norm": (lambda: nn.GroupNorm(1, 2), (2, 3)),
    "silu in place": (lambda: nn.SiLU(inplace=True), (2, 3)),
    "under torch.func": (lambda: Lambda(torch.func.vmap(F.gelu)), (2, 3)),
}


def problem_of(layer: nn.Module, shape: tuple[int, ...], dtype: torch.dtype = D, **kwargs: Any) -> Problem:
    torch.manual_seed(0)
    before = nn.Identity() if not isinstance(layer, nn.SiLU) else nn.Threshold(-1e9, 0)  # a leaf's view is not written
    model = Flat(shape[0], before, layer).to(dtype).eval()
    batches = [(torch.randn(size, *shape, dtype=dtype), torch.randint(3, (size,))) for size in (3, 2)]
    return Problem(model, "cross_entropy", batches, **kwargs)


def all_of(problem: Problem, engine: ReverseOverReverse) -> Tensor:
    H = HessianOperator(problem, engine="reverse-over-reverse")
    H.engine = engine
    return H.matmat(torch.eye(H.n, dtype=H.dtype))


def error(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.matrix_norm(found.double() - expected) / torch.linalg.matrix_norm(expected))


def nodes(problem: Problem) -> str:
    with ClosedForms():
        total, _ = problem.batch_totals(next(problem.batches()))
    waiting, names = [total.grad_fn], []
    while waiting:
        node = waiting.pop()
        if node is not None:
            names.append(node.name())
            waiting += [following for following, _ in node.next_functions]
    return " ".join(names)


@pytest.mark.parametrize("name", CASES)
def test_the_hessian_is_that_of_torchs_own_operation(name: str) -> None:
    make, shape, node = CASES[name]
    problem = problem_of(make(), shape)
    assert node in nodes(problem)
    assert error(all_of(problem, ReverseOverReverse()), dense_hessian(problem)) <= 1e-13
    single = problem_of(make(), shape, torch.float32)
    assert error(all_of(single, ReverseOverReverse()), dense_hessian(single)) <= 3e-6


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_torch_is_right_too(name: str) -> None:
    make, shape = LEFT[name]
    problem = problem_of(make(), shape)
    assert not any(f"{node}Backward" in nodes(problem) for node in ("_Output", "_LayerNorm", "_Activation"))
    assert error(all_of(problem, ReverseOverReverse()), dense_hessian(problem)) <= 1e-13


@pytest.mark.parametrize("name", ["batch norm, 2d", "layer norm"])
@pytest.mark.parametrize("only", ["scale", "*weight", "*bias"])
def test_a_selection_of_the_weights(name: str, only: str) -> None:
    make, shape, _ = CASES[name]
    problem = problem_of(make(), shape, include=[only])
    assert error(all_of(problem, ReverseOverReverse()), dense_hessian(problem)) <= 1e-13


def test_the_loss_is_the_same_and_the_mode_ends_with_the_work() -> None:
    make, shape, _ = CASES["layer norm"]
    problem = problem_of(make(), shape)
    batch = next(problem.batches())
    plain, _ = problem.batch_totals(batch)
    with ClosedForms():
        ours, _ = problem.batch_totals(batch)
    assert float(ours.detach()) == pytest.approx(float(plain.detach()), rel=1e-14)
    before = _len_torch_function_stack()
    with pytest.raises(RuntimeError):
        ReverseOverReverse().linearize(problem, batch.__class__(**{**vars(batch), "inputs": torch.zeros(3)}))
    assert _len_torch_function_stack() == before


def test_statistics_of_the_batch_are_left_alone() -> None:
    """Without running statistics BatchNorm takes the batch's, in evaluation mode too: no affine map."""
    problem = problem_of(nn.BatchNorm1d(2, track_running_stats=False), (2, 3))
    assert error(all_of(problem, ReverseOverReverse()), dense_hessian(problem)) <= 1e-13
    assert "NativeBatchNorm" in nodes(problem)


class Checkpointed(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.body, x, use_reentrant=False)
        return result


def test_a_checkpointed_part_is_computed_anew_with_the_same_operations() -> None:
    body = nn.Sequential(layer_norm(5), nn.Linear(5, 4), nn.GELU())
    problem = problem_of(Checkpointed(body), (2, 5))
    H = HessianOperator(problem)
    assert H.engine_info.name == "reverse-over-reverse"
    plain = problem_of(copy.deepcopy(body), (2, 5))
    assert error(H.matmat(torch.eye(H.n, dtype=D)), dense_hessian(plain)) <= 1e-13


def test_a_model_that_a_closed_form_cannot_take_gets_torchs_operations() -> None:
    """A Tensor hook that reads the graph's node, say: whatever fails under the mode is tried without it."""

    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = F.gelu(self.linear(x))
            if _len_torch_function_stack():
                raise RuntimeError("no modes here")
            return h

    torch.manual_seed(0)
    problem = Problem(Picky().double(), "cross_entropy", [(torch.randn(4, 2, dtype=D), torch.arange(4) % 3)])
    H = HessianOperator(problem)
    assert H.engine_info.name == "reverse-over-reverse"
    assert error(H.matmat(torch.eye(H.n, dtype=D)), dense_hessian(problem)) <= 1e-13
