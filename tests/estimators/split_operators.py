"""Matrices H = G + R that answer what an estimator may ask of a network's two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature import DenseOperator
from hessdiag.curvature.operator import Split
from hessdiag.curvature.requests import (
    BlockSquares,
    GaussNewtonSums,
    OutputDraws,
    QuadraticForms,
    Request,
    ResidualBlocks,
    ResidualDiagonal,
    Served,
)
from hessdiag.problem import Group


class SplitOperator(DenseOperator):
    """H_b = sum over examples of F_i^T F_i + R_b.

    Args:
        factors: of each batch, F (examples, columns, n).
        residuals: of each batch, R_b (n, n).
        groups: names for stretches of the vector.
    """

    def __init__(
        self, factors: Sequence[Tensor], residuals: Sequence[Tensor], groups: Sequence[Group] | None = None
    ) -> None:
        products = [F.flatten(0, 1) for F in factors]
        super().__init__([P.T @ P + R for P, R in zip(products, residuals, strict=True)], groups)
        self.factors, self.residuals = list(factors), list(residuals)
        self._residual = DenseOperator(self.residuals, self.groups)
        self._residual.meter = self.meter

    @property
    def split(self) -> Split:
        return Split(True, columns=self.factors[0].shape[1])

    @property
    def trace(self) -> float:
        """The truth."""
        return float(sum((A.double().trace() for A in self._batches), torch.zeros((), dtype=torch.float64)))

    @property
    def _ends(self) -> list[int]:
        return np.cumsum([0, *(group.size for group in self.groups)]).tolist()

    def _served(self, request: Request) -> Served:
        if isinstance(request, QuadraticForms) and request.part == "residual":
            whole = QuadraticForms(request.draw, request.probes, request.per_batch, batches=request.batches)
            return self._residual._served(whole)
        before = self.meter.read()
        answer: Any
        if isinstance(request, OutputDraws):
            answer = self._gauss_newton(request)
        elif isinstance(request, ResidualDiagonal):
            blocks = self._blocks().diagonal()
            answer = int(blocks.argmax()) if bool(blocks.any()) else None
        elif isinstance(request, ResidualBlocks):
            answer = BlockSquares(self._blocks(), 0.0)
        else:
            return super()._served(request)
        return Served(answer, self.meter.read() - before)

    def _blocks(self) -> Tensor:
        squares = torch.stack([R.double().square() for R in self.residuals]).sum(0)
        stretches = [slice(a, b) for a, b in zip(self._ends, self._ends[1:], strict=False)]
        return torch.tensor([[float(squares[g, h].sum()) for h in stretches] for g in stretches], dtype=torch.float64)

    def _gauss_newton(self, request: OutputDraws) -> GaussNewtonSums:
        samples = []
        for batch, F in enumerate(self.factors):
            if request.exact:
                squares = F.double().square().sum((0, 1))[None, None]
                self.meter.add("gradient", F.shape[1])
            else:
                squares = torch.stack([self._draw(F, request.seed, draw, batch) for draw in request.draws])
                self.meter.add("gradient", len(request.draws))
            by_group = [squares[..., a:b].sum(-1) for a, b in zip(self._ends, self._ends[1:], strict=False)]
            samples.append(torch.stack(by_group, -1))
        by_example = torch.cat(samples, 1)  # (draws, examples, groups)
        if request.exact:
            return GaussNewtonSums(by_example.sum(1), torch.zeros(len(self.groups) + 1).double(), float("inf"))
        variances = torch.cat([by_example, by_example.sum(2, keepdim=True)], 2).var(0) / len(request.draws)
        whole = variances[:, -1]
        degrees = (len(request.draws) - 1) * float(whole.sum() ** 2 / whole.square().sum())
        return GaussNewtonSums(by_example.sum(1), variances.sum(0), degrees)

    def _draw(self, F: Tensor, seed: int, draw: int, batch: int) -> Tensor:
        """An example's squared gradient along random signs, entry by entry: (examples, n)."""
        signs = np.random.default_rng([seed, draw, batch]).choice([-1.0, 1.0], F.shape[:2])
        return torch.einsum("ec,ecn->en", torch.from_numpy(signs), F.double()).square()


def network_like_split(
    sizes: Sequence[int],
    *,
    batches: int = 4,
    examples: int = 20,
    columns: int = 9,
    residual: float = 0.1,
    without: Sequence[int] = (),
    seed: int = 0,
) -> SplitOperator:
    """Random factors, and residuals of either sign with ``residual`` times G's Frobenius norm.

    Tensors in ``without`` have no diagonal block in R.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n = sum(sizes)
    ends = np.cumsum([0, *sizes])
    factors = [normal(examples, columns, n) / n**0.5 for _ in range(batches)]
    residuals = []
    for F in factors:
        P = F.flatten(0, 1)
        A = normal(n, n)
        A = A + A.T
        for tensor in without:
            A[ends[tensor] : ends[tensor + 1], ends[tensor] : ends[tensor + 1]] = 0
        residuals.append(A * (residual * torch.linalg.matrix_norm(P.T @ P) / torch.linalg.matrix_norm(A)))
    return SplitOperator(factors, residuals, [Group(f"tensor{i}", size) for i, size in enumerate(sizes)])
