"""The interface: a symmetric n x n operator that is a sum over batches, known by its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hessdiag.cost import Meter
from hessdiag.errors import UsageError
from hessdiag.problem.problem import Group

__all__ = ["Draw", "SymmetricOperator"]

Draw = Callable[[int, int | None], Tensor]
"""``draw(probe, batch)`` gives the probe vector (n,); ``batch`` None asks for one that all batches share."""


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

    def matvec(self, v: Tensor) -> Tensor:
        """Hv for v of shape (n,)."""
        if v.ndim != 1:
            raise UsageError(f"matvec: found a tensor of shape {tuple(v.shape)}, expected ({self.n},)")
        return self.matmat(v[:, None])[:, 0]

    @abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        """HV for V of shape (n, k): k products for the price of k, sharing what can be shared.

        Raises:
            UsageError: V has another shape.
        """

    @abstractmethod
    def quadratic_forms(self, draw: Draw, probes: Sequence[int], *, per_batch: bool = True) -> Tensor:
        """sum_b v_b^T H_b v_b for each probe, by parameter group.

        With a fresh v_b for each batch the mean over Rademacher or unit Gaussian draws is still Tr[H], at
        the same cost and with several times less variance than with one v for all batches.

        Args:
            draw: gives the probe vectors; see :data:`Draw`.
            probes: the numbers of the probes wanted.
            per_batch: a fresh vector for each batch, or one for all.

        Returns:
            Float64 tensor (len(probes), len(groups)) on the CPU; a row's sum is the whole quadratic form.
        """

    def _checked(self, V: Tensor) -> Tensor:
        if V.ndim != 2 or V.shape[0] != self.n:
            raise UsageError(f"matmat: found a tensor of shape {tuple(V.shape)}, expected ({self.n}, k)")
        return V.to(self.device, self.dtype)

    def _by_group(self, v: Tensor, product: Tensor) -> Tensor:
        """v_g^T (Hv)_g for every group g, summed in float64."""
        sizes = [group.size for group in self.groups]
        parts = torch.split(v * product, sizes)
        return torch.stack([part.sum(dtype=torch.float64) for part in parts])
