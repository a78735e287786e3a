"""Every training method on small networks, by name: for tests of what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.nso import ASAM, BSAM, NSO, RSAM, RSP, SAM, SAP, WPSGD
from hessdiag.nso.methods.displaced import DisplacedOptimizer


@dataclass(frozen=True)
class Case:
    """A method: how to make it for a model, and the gradients that a step takes."""

    make: Callable[..., DisplacedOptimizer]
    gradients: int
    clean: bool  # whether one of its passes is at the weights themselves

    def __call__(self, model: nn.Module, **options: Any) -> DisplacedOptimizer:
        parameters = options.pop("params", None) or model.parameters()
        return self.make(parameters, **{"lr": 0.1, "model": model} | options)


def _bsam(params: Iterable[Any], *, base: Any = None, momentum: float = 0.0, **options: Any) -> BSAM:
    return BSAM(params, **{"num_examples": 100, "rho": 0.05} | options)


def _with(method: type[DisplacedOptimizer], **own: Any) -> Callable[..., DisplacedOptimizer]:
    return lambda params, **options: method(params, **own | options)


CASES = {
    "nso": Case(_with(NSO, sigma=0.05), 2, clean=False),
    "nso-3": Case(_with(NSO, sigma=0.05, num_perturbations=3), 6, clean=False),
    "wp-sgd": Case(_with(WPSGD, sigma=0.05), 1, clean=False),
    "sam": Case(_with(SAM, rho=0.05), 2, clean=True),
    "asam": Case(_with(ASAM, rho=0.5), 2, clean=True),
    "rsam": Case(_with(RSAM, rho=0.05, sigma=0.05), 2, clean=False),
    "bsam": Case(_bsam, 2, clean=False),
    "rsp": Case(_with(RSP, rho=0.05), 2, clean=True),
    "rsp-far": Case(_with(RSP, rho=0.05, eps0=0.0), 1, clean=True),
    "sap": Case(_with(SAP, rho=0.05), 3, clean=True),
}


def network(*, norm: bool = False, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """5-8-3, GELU, with BatchNorm where wanted."""
    torch.manual_seed(seed)
    layers = [nn.Linear(5, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.GELU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).to(dtype)


def examples(count: int = 12, dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator, dtype=dtype), torch.randint(3, (count,), generator=generator)


class Counted:
    """A closure that counts its calls and remembers the weights that it was called at."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *, pieces: int = 1
    ) -> None:
        self.model, self.optimizer, self.x, self.y, self.pieces = model, optimizer, x, y, pieces
        self.calls, self.seen = 0, []

    def __call__(self) -> Tensor:
        self.calls += 1
        self.seen.append([p.detach().clone() for p in self.model.parameters()])
        self.optimizer.zero_grad()
        total = torch.zeros(())
        for x, y in zip(self.x.chunk(self.pieces), self.y.chunk(self.pieces), strict=True):
            loss = nn.functional.cross_entropy(self.model(x), y) * len(x) / len(self.x)
            loss.backward()
            total = total + loss.detach()
        return total


def weights_of(model: nn.Module) -> list[Tensor]:
    """A copy."""
    return [p.detach().clone() for p in model.parameters()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
