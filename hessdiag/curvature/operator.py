"""The interface: a symmetric n x n operator that is a sum over batches, known by what it serves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.cost import Meter
from hessdiag.curvature.requests import Draw, Products, QuadraticForms, Request, Served
from hessdiag.errors import UsageError
from hessdiag.problem.problem import Group

__all__ = ["Draw", "Split", "SymmetricOperator"]


@dataclass(frozen=True)
class Split:
    """Whether H = G + R, Gauss-Newton part and residual, can be measured in its parts.

    Attributes:
        available: if not, ``reason`` says why.
        columns: how many gradient passes the exact trace of G takes.
        how: how the gradients of single examples are had.
    """

    available: bool
    reason: str = ""
    columns: int = 0
    how: str = ""


class SymmetricOperator(ABC):
    """H = sum over batches b of H_b, symmetric, (n, n). Estimators know an operator by this face alone.

    Attributes:
        n: the order.
        dtype: of vectors in and out, float32 or float64.
        device: where vectors live.
        groups: stretches of the flat vector with names, for traces by group.
        meter: counts products in passes over the whole data.
    """

    n: int
    dtype: torch.dtype
    device: torch.device
    groups: tuple[Group, ...]
    meter: Meter

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""
        return (self.n, self.n)

    @property
    def precision(self) -> torch.dtype:
        """What products are computed in; of a half-precision model that is less than its vectors' ``dtype``."""
        return self.dtype

    @property
    def split(self) -> Split:
        """Whether there is a Gauss-Newton part to ask for (:class:`~hessdiag.curvature.requests.OutputDraws`)."""
        return Split(False, "a matrix is known as a whole alone")

    @abstractmethod
    def serve(self, requests: Sequence[Request]) -> list[Served]:
        """Answer several requests with one pass over the data (with several where memory does not hold one's vectors).

        Raises:
            UsageError: a matrix of another shape, or a request that this operator cannot answer.
        """

    def matvec(self, v: Tensor) -> Tensor:
        """Hv for v of shape (n,)."""
        if v.ndim != 1:
            raise UsageError(f"matvec: found a tensor of shape {tuple(v.shape)}, expected ({self.n},)")
        return self.matmat(v[:, None])[:, 0]

    def matmat(self, V: Tensor) -> Tensor:
        """HV for V of shape (n, k): k products for the price of k, sharing what can be shared.

        Raises:
            UsageError: V has another shape.
        """
        products: Tensor = self.serve([Products(V)])[0].answer
        return products

    def quadratic_forms(self, draw: Draw, probes: Sequence[int], *, per_batch: bool = True) -> Tensor:
        """sum_b v_b^T H_b v_b for each probe, by parameter group.

        Args:
            draw: gives the probe vectors; see :data:`Draw`.
            probes: the numbers of the probes wanted.
            per_batch: a fresh vector for each batch (less variance at the same cost), or one for all.

        Returns:
            Float64 tensor (len(probes), len(groups)) on the CPU; a row's sum is the whole quadratic form.
        """
        sums: Tensor = self.serve([QuadraticForms(draw, probes, per_batch)])[0].answer.sums
        return sums

    def _checked(self, V: Tensor) -> Tensor:
        if V.ndim != 2 or V.shape[0] != self.n:
            raise UsageError(f"matmat: found a tensor of shape {tuple(V.shape)}, expected ({self.n}, k)")
        return V.to(self.device, self.dtype)

    def by_group(self, v: Tensor, product: Tensor) -> Tensor:
        """v_g^T (Hv)_g for every group g, summed in float64, (groups,)."""
        sizes = [group.size for group in self.groups]
        parts = torch.split(v * product, sizes)
        return torch.stack([part.sum(dtype=torch.float64) for part in parts])
