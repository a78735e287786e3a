"""The explicit matrix for small models: the oracle that everything else is tested against."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.cost import Meter
from hessdiag.curvature.graph import cut_short
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Forms, Products, QuadraticForms, Request, Served
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.memory import out_of_memory
from hessdiag.problem import Batch, Group, Problem

__all__ = ["DenseOperator", "dense_hessian"]

_ROWS_AT_ONCE = 64
_ASYMMETRY = 1e-6  # relative, in float64: far above rounding


class DenseOperator(SymmetricOperator):
    """A symmetric matrix as an operator, whole or as a sum of batches' matrices.

    Args:
        matrices: (n, n), or one such for each batch, symmetric.
        groups: names for stretches of the vector; default: one group.
    """

    def __init__(self, matrices: Tensor | Sequence[Tensor], groups: Sequence[Group] | None = None) -> None:
        self._batches = [matrices] if isinstance(matrices, Tensor) else list(matrices)
        first = self._batches[0]
        if first.ndim != 2 or first.shape[0] != first.shape[1]:
            raise UsageError(f"found a matrix of shape {tuple(first.shape)}, expected a square one")
        self.n, self.dtype, self.device = first.shape[0], first.dtype, first.device
        self.groups = tuple(groups or [Group("all", self.n)])
        self.meter = Meter(len(self._batches))

    def serve(self, requests: Sequence[Request]) -> list[Served]:
        return [self._served(request) for request in requests]

    def _served(self, request: Request) -> Served:
        before = self.meter.read()
        if isinstance(request, Products):
            answer: Any = self._products(self._checked(request.V))
        elif isinstance(request, QuadraticForms) and request.part == "hessian":
            answer = self._forms(request)
        else:
            raise UsageError(f"serve: found a request {type(request).__name__}, expected products or quadratic forms")
        return Served(answer, self.meter.read() - before)

    def _products(self, V: Tensor) -> Tensor:
        self.meter.add("hvp", V.shape[1] * len(self._batches))
        products = [matrix @ V for matrix in self._batches]
        return torch.stack(products).sum(0) if len(products) > 1 else products[0]

    def _forms(self, request: QuadraticForms) -> Forms:
        sums = torch.zeros(len(request.probes), len(self.groups), dtype=torch.float64, device="cpu")
        totals = torch.zeros(len(request.probes), len(self._batches), dtype=torch.float64, device="cpu")
        for index, matrix in enumerate(self._batches):
            if request.batches is not None and index not in request.batches:
                continue
            drawn = [request.draw(probe, index if request.per_batch else None) for probe in request.probes]
            V = torch.stack(drawn, 1).to(self.device, self.dtype)
            terms = torch.split(V * (matrix @ V), [group.size for group in self.groups])
            forms = torch.stack([part.sum(0, dtype=torch.float64) for part in terms], 1).cpu()
            sums += forms
            totals[:, index] = forms.sum(1)
            self.meter.add("hvp", len(request.probes))
        return Forms(sums, totals)


def dense_hessian(problem: Problem) -> Tensor:
    """The whole Hessian (n, n) in float64, symmetrised, on a float64 copy of the model.

    It uses none of the engines: each row is the gradient of one entry of the gradient of the same batch totals.
    The price is n products, many at a time where the model's operations can be vectorised; the memory 8 n^2 bytes.

    Raises:
        MeasurementError: an operation has no second derivative, or a wrong one (rows and columns differ).
    """
    exact = problem.in_float64()
    matrix = torch.zeros(exact.n, exact.n, dtype=torch.float64, device=exact.device)
    with exact.measuring(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # of vmap: right, only slower
        for batch in exact.batches():
            matrix += _batch_hessian(exact, batch)
            problem.meter.add("hvp", exact.n)
    matrix /= exact.weight
    size, difference = float(torch.linalg.matrix_norm(matrix)), float(torch.linalg.matrix_norm(matrix - matrix.T))
    if not difference <= _ASYMMETRY * size:
        raise MeasurementError(
            f"the dense Hessian is not symmetric (||H - H^T|| = {difference:.3g}, ||H|| = {size:.3g}): "
            "some operation has a wrong second derivative"
        )
    return (matrix + matrix.T) / 2


def _batch_hessian(problem: Problem, batch: Batch) -> Tensor:
    """Rows d/dw_i of the gradient of one batch's total, (n, n)."""
    parameters = list(problem.parameters.values())
    total, _ = problem.batch_totals(batch)
    if not total.requires_grad:
        return torch.zeros(problem.n, problem.n, dtype=torch.float64, device=problem.device)
    gradient = problem.flatten(torch.autograd.grad(total, parameters, create_graph=True, allow_unused=True))
    if cut_short([gradient]):
        raise MeasurementError("the loss has no dense Hessian: an operation is marked once_differentiable")
    if not gradient.requires_grad:
        return torch.zeros(problem.n, problem.n, dtype=torch.float64, device=problem.device)
    try:
        return _rows_at_once(problem, gradient)
    except RuntimeError:  # an operation without batching rule
        return _row_by_row(problem, gradient)


def _row_by_row(problem: Problem, gradient: Tensor) -> Tensor:
    parameters, rows = list(problem.parameters.values()), torch.autograd.grad
    try:
        return torch.stack(
            [problem.flatten(rows(g, parameters, retain_graph=True, allow_unused=True)) for g in gradient]
        )
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        raise MeasurementError(f"the loss has no dense Hessian: {str(error).strip().splitlines()[0]}") from error


def _rows_at_once(problem: Problem, gradient: Tensor) -> Tensor:
    parameters = list(problem.parameters.values())
    identity = torch.eye(problem.n, dtype=torch.float64, device=problem.device)
    blocks = []
    for units in torch.split(identity, _ROWS_AT_ONCE):
        rows = torch.autograd.grad(
            gradient, parameters, units, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        parts = [
            units.new_zeros(len(units), group.size) if row is None else row.reshape(len(units), -1)
            for row, group in zip(rows, problem.groups, strict=True)
        ]
        blocks.append(torch.cat(parts, 1))
    return torch.cat(blocks)
