"""What may be asked of one pass over the data, and what comes back.

Estimators ask for these; an operator serves as many of them as it is given in one pass, so that the data are
read once and a batch's graph is built once for all that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hessdiag.cost import Cost

__all__ = [
    "BlockSquares",
    "DisplacedLosses",
    "Draw",
    "Forms",
    "GaussNewtonSums",
    "Losses",
    "OutputDraws",
    "Part",
    "Products",
    "QuadraticForms",
    "Request",
    "ResidualBlocks",
    "ResidualDiagonal",
    "Served",
    "TimeLeft",
]

Draw = Callable[[int, int | None], Tensor]
"""``draw(probe, batch)`` gives the probe vector (n,); ``batch`` None asks for one that all batches share."""

Part = Literal["hessian", "residual"]
"""The whole of H = G + R, or its part R that is no Gauss-Newton matrix."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing wanted from the next pass.

    ``expect``: how many more passes its estimator foresees after it. ``vital``: without it there would be no
    result at all, so it is served even when the time is up.
    """

    expect: float = 0.0
    vital: bool = False

    @property
    def passes(self) -> float:
        """What it will count for, in passes over the whole data."""
        return 1.0


@dataclass(frozen=True)
class Products(Request):
    """HV, (n, k), for ``V`` (n, k)."""

    V: Tensor

    @property
    def passes(self) -> float:
        return self.V.shape[1]


@dataclass(frozen=True)
class QuadraticForms(Request):
    """sum_b v_b^T H_b v_b for each of ``probes``; the answer is :class:`Forms`.

    With a fresh v_b for each batch the mean over Rademacher or unit Gaussian draws is still Tr[H], at the same
    cost and with several times less variance than with one v for all batches.
    """

    draw: Draw
    probes: Sequence[int]
    per_batch: bool = True
    part: Part = "hessian"
    batches: Collection[int] | None = None  # these alone; None: all

    @property
    def passes(self) -> float:
        return len(self.probes) if self.batches is None else 1


@dataclass(frozen=True)
class Forms:
    """Quadratic forms, in float64 on the CPU: ``sums`` (probes, groups) over batches, and by batch the whole form.

    ``batch_totals`` (probes, batches): with a fresh vector for each batch its entries are independent, so that
    a variance can be pooled over batches. Both are shares of the mean loss: they add up to the form of H.
    """

    sums: Tensor
    batch_totals: Tensor


@dataclass(frozen=True)
class OutputDraws(Request):
    """Samples of Tr[G] from gradients along random directions of the outputs; the answer is :class:`GaussNewtonSums`.

    Where the loss turns out not to be convex in some batch it is the exception ``NoSplit``, which says why.

    ``draws`` are numbers of draws, keyed with ``seed`` and the batch; ``exact`` takes every direction in turn.
    """

    seed: int
    draws: Sequence[int]
    exact: bool = False

    @property
    def passes(self) -> float:
        return max(len(self.draws), 1)


@dataclass(frozen=True)
class GaussNewtonSums:
    """Samples of Tr[G] by group, ``sums`` (draws, groups), float64 on the CPU; exact: one row.

    ``variance`` (groups + 1,) is that of the mean over these draws with the data held fixed, by group and,
    last, of the whole; ``degrees`` are the whole's degrees of freedom.
    """

    sums: Tensor
    variance: Tensor
    degrees: float


@dataclass(frozen=True)
class ResidualDiagonal(Request):
    """Whether R has a diagonal; the answer is the number of a parameter tensor g with R_gg != 0, or None.

    None says that Tr[R] = 0 by the structure of the network. Two products or so on a few examples for each tensor.
    """

    seed: int


@dataclass(frozen=True)
class ResidualBlocks(Request):
    """Where R is large; the answer is :class:`BlockSquares`, to plan by. Takes ``most`` passes at most.

    One product on a few examples for each tensor, the tensors spread over the batches.
    """

    seed: int
    most: float

    @property
    def passes(self) -> float:
        return self.most


@dataclass(frozen=True)
class BlockSquares:
    """Estimates of ||R_gh||_F^2 of all pairs of tensors, (groups, groups) float64 CPU, and the passes they took."""

    squares: Tensor
    passes: float


@dataclass(frozen=True)
class TimeLeft(Request):
    """No pass: the runner itself answers for how many there is time, as fast as the estimator's earlier ones.

    Infinite without a deadline.
    """

    @property
    def passes(self) -> float:
        return 0.0


@dataclass(frozen=True)
class DisplacedLosses(Request):
    """f(w + scale u) for each of ``probes`` u and each of ``scales``; the answer is :class:`Losses`.

    ``compiled``: by forward passes through ``torch.compile``, f(w) too.
    """

    draw: Draw
    probes: Sequence[int]
    scales: Sequence[float]
    per_batch: bool = True
    compiled: bool = False

    @property
    def passes(self) -> float:
        return 1 + len(self.probes) * len(self.scales)


@dataclass(frozen=True)
class Losses:
    """By batch, as shares of the mean loss: ``at_weights`` (batches,) and ``displaced`` (probes, scales, batches).

    Float64 on the CPU; summed over batches they are f(w) and f(w + scale u).
    """

    at_weights: Tensor
    displaced: Tensor


@dataclass(frozen=True)
class Served:
    """An answer, and what it cost."""

    answer: Any
    cost: Cost
