"""PyHessian on our problem, given the same weighting: its batches weigh ``inputs.size(0)``, ours their denominator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessdiag.errors import MeasurementError
from hessdiag.problem import Batch, Problem

__all__ = ["PyHessian", "pyhessian_of"]


@dataclass(frozen=True)
class PyHessian:
    """PyHessian's own numbers. Its eigenvalue is the one of largest magnitude."""

    module: Any
    device: torch.device

    def _seed(self, seed: int) -> None:
        """It draws from its device's global generator, which ``measuring`` puts back; others are left alone."""
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    def eigenvalue(self, iterations: int, seed: int) -> float:
        """Its power iteration's first eigenvalue, run well past its own stopping rule."""
        self._seed(seed)
        values, _ = self.module.eigenvalues(maxIter=iterations, tol=1e-6, top_n=1)
        return float(values[0])

    def trace(self, probes: int, seed: int) -> tuple[float, float]:
        """Mean and standard error of ``probes`` of its Hutchinson samples; its early stop is disabled."""
        self._seed(seed)
        samples = np.array(self.module.trace(maxIter=probes, tol=-np.inf))
        return float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples)))


@contextmanager
def pyhessian_of(problem: Problem) -> Iterator[PyHessian]:
    """PyHessian's object for a problem, for as long as the body runs.

    Raises:
        MeasurementError: pyhessian is not installed, or the problem is of a kind that it cannot take.
    """
    try:
        from pyhessian import hessian
    except ImportError as error:
        raise MeasurementError(f"pyhessian cannot be imported ({error}): pip install pyhessian") from error
    if problem.model_dtype is torch.bfloat16:
        raise MeasurementError("pyhessian draws float32 vectors, which a bfloat16 model does not take")
    if problem.device.type not in ("cpu", "cuda"):
        raise MeasurementError(f"pyhessian knows cpu and cuda, not {problem.device.type}")
    with (
        problem.measuring(),
        _gradients_restored(problem.model),
        _default_dtype(problem.model_dtype),
        warnings.catch_warnings(),
        _current_device(problem.device),
    ):
        warnings.simplefilter("ignore")  # torch's on backward(create_graph=True), which PyHessian is built on
        adapter = _Adapter(problem)
        module = hessian(adapter, adapter.criterion, dataloader=adapter, cuda=problem.device.type == "cuda")
        yield PyHessian(module, problem.device)


class _Boxed:
    """A batch that answers as PyHessian asks its inputs: a weight as ``size(0)``, and ``to``."""

    def __init__(self, batch: Batch, weight: float) -> None:
        self.batch, self.weight = batch, weight

    def size(self, dimension: int) -> float:
        return self.weight

    def to(self, device: str) -> _Boxed:
        return self


class _Adapter(nn.Module):
    """The problem as a model that returns its batch's mean loss, and as the loader of its own batches."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self._problem = problem
        self._weights = {}
        used: set[str] = set(problem.parameters)
        for batch in problem.batches():
            total, count = problem.batch_totals(batch)
            if float(count) > 0:
                self._weights[batch.index] = float(count)
                used &= _reached(problem, total)
        # A parameter that the loss does not reach has no gradient, on which PyHessian fails; its Hessian is zero.
        self._selected = [p for name, p in problem.parameters.items() if name in used]

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(self._selected)

    def forward(self, boxed: _Boxed) -> Tensor:
        total, count = self._problem.batch_totals(boxed.batch)
        return total / count

    @staticmethod
    def criterion(mean: Tensor, targets: _Boxed) -> Tensor:
        return mean

    def __iter__(self) -> Iterator[tuple[_Boxed, _Boxed]]:
        for batch in self._problem.batches():
            self._problem.meter.add("hvp", 1)  # it goes through its loader once for each product
            if batch.index in self._weights:
                boxed = _Boxed(batch, self._weights[batch.index])
                yield boxed, boxed


def _reached(problem: Problem, total: Tensor) -> set[str]:
    gradients = torch.autograd.grad(total, list(problem.parameters.values()), allow_unused=True)
    return {name for name, g in zip(problem.parameters, gradients, strict=True) if g is not None}


@contextmanager
def _gradients_restored(model: nn.Module) -> Iterator[None]:
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _current_device(device: torch.device) -> AbstractContextManager[Any]:
    """PyHessian says ``cuda`` and means the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """PyHessian draws in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
