"""A problem's Hessian as stored matrices, one for each batch: what a thousand runs of an estimator can be had on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from hessdiag import HessianOperator, Problem
from hessdiag.curvature import DenseOperator, SymmetricOperator
from hessdiag.curvature.operator import Split
from hessdiag.curvature.requests import Products, QuadraticForms, Request, Served
from hessdiag.problem import Batch
from tests.benchmarks.subjects import subject


class StoredHessian(SymmetricOperator):
    """H = sum_b H_b and R = sum_b R_b as matrices in float32; the rest is asked of the live problem.

    Attributes:
        batches: (B, n, n), the H_b, float32, symmetric.
        residuals: (B, n, n), the R_b; None where H has no Gauss-Newton part.
        exact: (n, n) float64, the sum of ``batches``, of which the estimates are estimates.
        trace: of ``exact``.
    """

    def __init__(self, problem: Problem) -> None:
        self.live = HessianOperator(problem)
        self.n, self.dtype, self.device = problem.n, problem.dtype, problem.device
        self.groups, self.meter = self.live.groups, self.live.meter
        self.batches = torch.stack([_hessian(problem, batch) for batch in problem.batches()])
        self.residuals = None
        if self.live.split.available:
            self.residuals = torch.stack([_residual(problem, batch) for batch in problem.batches()])
        self.exact = self.batches.sum(0, dtype=torch.float64)
        self.trace = float(self.exact.trace())
        self._whole = DenseOperator(self.exact.to(self.dtype), self.groups)
        self._hessians = DenseOperator(list(self.batches), self.groups)
        self._residuals = DenseOperator(list(self.residuals), self.groups) if self.residuals is not None else None

    @property
    def split(self) -> Split:
        return self.live.split

    def serve(self, requests: Sequence[Request]) -> list[Served]:
        return [self._served(request) for request in requests]

    def _served(self, request: Request) -> Served:
        if isinstance(request, QuadraticForms) and request.part == "residual":
            assert self._residuals is not None
            return self._residuals.serve([replace(request, part="hessian")])[0]
        if isinstance(request, Products):
            return self._whole.serve([request])[0]
        if isinstance(request, QuadraticForms):
            return self._hessians.serve([request])[0]
        return self.live.serve([request])[0]


def _hessian(problem: Problem, batch: Batch) -> Tensor:
    """H_b, the batch's share of the whole."""
    alone = Problem(problem.model, problem.loss, [(batch.inputs, batch.targets)])
    return _matrix(alone, alone.weight / problem.weight)


def _residual(problem: Problem, batch: Batch) -> Tensor:
    """R_b: the Hessian of <c, z(w)>, z the outputs and c = d total / dz held fixed."""
    with problem.measuring():
        outputs = problem.outputs(batch).detach().requires_grad_()
        total, _ = problem.loss(outputs, batch.targets, batch.rows)
        (slopes,) = torch.autograd.grad(total, outputs)
    linear = Problem(problem.model, lambda z, c: ((z * c).sum(), torch.ones(())), [(batch.inputs, slopes)])
    return _matrix(linear, 1 / problem.weight)


def _matrix(problem: Problem, share: float) -> Tensor:
    """``share`` times the problem's Hessian, (n, n) float32, made symmetric."""
    rows = share * HessianOperator(problem).matmat(torch.eye(problem.n)).double()
    return ((rows + rows.T) / 2).float()


@cache
def stored(name: str) -> StoredHessian:
    """The named subject's, made once."""
    return StoredHessian(subject(name))
