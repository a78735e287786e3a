"""The published programs, given the same problem: the products of each, and why one takes no part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from hessdiag import HessianOperator, Problem
from hessdiag.workflows.pyhessian_adapter import pyhessian_of
from tests.benchmarks.networks import Batches, Case

PACKAGES = {
    "PyHessian": "pyhessian",
    "curvlinops": "curvlinops-for-pytorch",
    "hessian-eigenthings": "hessian-eigenthings",
}

Product = Callable[[], Tensor]
"""Multiplies by the matrix V (n, k) that it was made with."""


def versions() -> str:
    """Of hessdiag, torch and the peers, for the page."""
    return ", ".join(_version(package) for package in ("hessdiag", "torch", *PACKAGES.values()))


def installed(peer: str) -> bool:
    """Whether its package is there."""
    return "not installed" not in _version(PACKAGES[peer])


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


@contextmanager
def product_of(name: str, case: Case, problem: Problem, V: Tensor) -> Iterator[Product]:
    """The named program's V -> HV, made ready, for as long as the body runs.

    All run in what ``Problem.measuring`` sets: evaluation mode and kernels that have a second derivative.
    """
    with problem.measuring(), _PRODUCTS[name](case, problem, V) as product:
        yield product


@contextmanager
def _hessdiag(case: Case, problem: Problem, V: Tensor) -> Iterator[Product]:
    H = HessianOperator(problem)
    yield lambda: H.matmat(V)


@contextmanager
def _pyhessian(case: Case, problem: Problem, V: Tensor) -> Iterator[Product]:
    with pyhessian_of(problem) as other:
        lists = [[part.clone() for part in problem.unflatten(v)] for v in V.T]
        yield lambda: torch.stack([problem.flatten(other.module.dataloader_hv_product(v)[1]) for v in lists], 1)


@contextmanager
def _curvlinops(case: Case, problem: Problem, V: Tensor) -> Iterator[Product]:
    from curvlinops import HessianLinearOperator

    model, batches = _as_classification(case)
    parameters = list(model.parameters())
    H = HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False)
    yield lambda: H @ V


@contextmanager
def _eigenthings(case: Case, problem: Problem, V: Tensor) -> Iterator[Product]:
    from hessian_eigenthings import HessianOperator as Operator

    model, batches = _as_classification(case)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    H = Operator(model, batches, loss)
    yield lambda: torch.stack([H.matvec(v) for v in V.T], 1)


_PRODUCTS = {
    "hessdiag": _hessdiag,
    "PyHessian": _pyhessian,
    "curvlinops": _curvlinops,
    "hessian-eigenthings": _eigenthings,
}
CONTENDERS = tuple(_PRODUCTS)


class _NextToken(nn.Module):
    """A causal model as a classifier of positions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(ids)[:, :-1].flatten(0, 1)
        return logits


def _as_classification(case: Case) -> tuple[nn.Module, Batches]:
    """What a program needs that knows logits (units, classes), labels (units,) and their mean cross-entropy."""
    if case.loss == "cross_entropy":
        return case.model, case.batches
    return _NextToken(case.model), [(ids, ids[:, 1:].flatten()) for ids, _ in case.batches]


def refusal(error: Exception) -> str:
    """Why a peer takes no part, in a few words."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:100]}"
