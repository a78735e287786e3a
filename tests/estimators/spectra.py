"""Symmetric matrices with a spectrum of our choice, turned by a random rotation, and their true answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hessdiag.cost import Meter
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products, Request, Served
from hessdiag.results import EigenvaluesResult


def rotated(values: Tensor | list[float], seed: int = 0) -> Tensor:
    """Q diag(values) Q^T, float64 (n, n), with Q uniform over the rotations."""
    diagonal = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    n = len(diagonal)
    Q, R = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    Q = Q * R.diagonal().sign()
    A = (Q * diagonal) @ Q.T
    return (A + A.T) / 2


def uniform(count: int, low: float, high: float, seed: int = 0) -> list[float]:
    """``count`` values between ``low`` and ``high``."""
    generator = torch.Generator().manual_seed(seed)
    values: list[float] = (low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)).tolist()
    return values


def network_like(n: int, seed: int = 0) -> Tensor:
    """A trained classifier's spectrum, (n,): nine outliers, a tail, and a narrow bulk of both signs."""
    outliers = torch.tensor([20.0, 12, 9, 8, 7, 6, 5.5, 5, 4.5], dtype=torch.float64)
    tail = torch.tensor(uniform(91, 0, 1, seed), dtype=torch.float64) ** 4 / 2
    generator = torch.Generator().manual_seed(seed)
    bulk = 1e-2 * torch.randn(n - 100, generator=generator, dtype=torch.float64)
    return torch.cat([outliers, tail, bulk])


def assert_right(result: EigenvaluesResult, A: Tensor, rtol: float) -> None:
    """Each value is, to rtol of the largest magnitude, the true one at its place in the sorted list."""
    truth = torch.linalg.eigvalsh(A.double())
    scale = float(truth.abs().max())
    ends = ((result.largest, truth.flip(0)), (result.smallest, truth))
    for pairs, expected in ends:
        for pair, true in zip(pairs, expected.tolist(), strict=False):
            assert abs(pair.value - true) <= rtol * scale + 1e-300, (result, true)
            assert pair.residual_norm <= rtol * scale
            nearest = float((truth - pair.value).abs().min())
            slack = 20 * torch.finfo(A.dtype).eps * max(float(truth.abs().max()), 0.0)
            assert nearest <= pair.residual_norm + slack


class Diagonal(SymmetricOperator):
    """A diagonal matrix as an operator: to what starts from Gaussian vectors as good as any other, and cheap."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.n = values, len(values)
        self.dtype, self.device, self.groups, self.meter = values.dtype, values.device, (), Meter()

    def serve(self, requests: Sequence[Request]) -> list[Served]:
        return [self._served(request) for request in requests]

    def _served(self, request: Request) -> Served:
        if not isinstance(request, Products):
            raise NotImplementedError(request)
        before = self.meter.read()
        self.meter.add("hvp", request.V.shape[1])
        return Served(self.values[:, None] * request.V, self.meter.read() - before)
