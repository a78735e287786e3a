"""Square roots of the losses' second derivatives in the outputs, for the Gauss-Newton part of a Hessian.

Where a unit's loss is convex in its outputs z, its second derivative there is d^2 loss / dz^2 = S S^T. With
independent random signs e for every unit, the gradient of sum_u (S_u e_u)^T z_u in the weights has the
Gauss-Newton matrix G = sum_u J_u^T S_u S_u^T J_u as its second moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hessdiag.losses.totals import Loss

__all__ = ["ConvexLoss", "ElementRoot", "OutputRoot", "SoftmaxRoot"]


class OutputRoot(Protocol):
    """S of every unit of one batch.

    Attributes:
        columns: how many cotangents :meth:`column` has to give.
    """

    @property
    def columns(self) -> int: ...

    def times(self, noise: Tensor) -> Tensor:
        """S e for every unit: a cotangent of the outputs' shape and dtype, for ``noise`` e of that shape."""
        ...

    def column(self, k: int) -> Tensor:
        """The k-th cotangent: in one unit of every example a column of S, in the others zero.

        An example's squared gradient norms along all of them add up to the trace of its share of G.
        """
        ...


@runtime_checkable
class ConvexLoss(Loss, Protocol):
    """A loss that is convex in the outputs."""

    def root(self, outputs: Any, targets: Any) -> OutputRoot:
        """The square roots of the second derivatives in the outputs, of one batch's total."""
        ...

    def why_not_convex(self, outputs: Any, targets: Any) -> str | None:
        """What speaks against it in this batch (a weight below 0, say), or None."""
        ...


@dataclass(frozen=True)
class SoftmaxRoot:
    """S = sqrt(s) diag(r) Q of units with s (diag p - p p^T), p the softmax of the logits and r = sqrt p.

    The better known root diag r - p r^T spends one of its C directions on r, its null vector. Q (C, C-1) is an
    orthonormal basis of the others: the Householder reflection 1 - (r + e_0)(r + e_0)^T / (1 + r_0) without its
    first column. So C - 1 cotangents are exact, and with two classes any one is.

    Args:
        probabilities: p, in at least float32.
        scale: sqrt s, of p's shape with one entry in place of the classes.
        classes: the dimension of the classes.
        dtype: of the cotangents.
    """

    probabilities: Tensor
    scale: Tensor
    classes: int
    dtype: torch.dtype

    def times(self, noise: Tensor) -> Tensor:
        """S e; entries of ``noise`` for class 0 are not looked at."""
        r = self.probabilities.sqrt()
        first = r.narrow(self.classes, 0, 1)
        e = noise.to(r.dtype).clone()
        e.narrow(self.classes, 0, 1).zero_()
        along = (r * e).sum(self.classes, keepdim=True)
        reflected = e - r * (along / (1 + first))
        reflected.narrow(self.classes, 0, 1).copy_(-along)
        return (self.scale * r * reflected).to(self.dtype)

    @property
    def columns(self) -> int:
        """C - 1 for each place of an example (a token, a pixel) that counts in any example."""
        return len(self._places) * (self.probabilities.shape[self.classes] - 1)

    def column(self, k: int) -> Tensor:
        place, number = divmod(k, self.probabilities.shape[self.classes] - 1)
        noise = torch.zeros_like(self.probabilities)
        where: tuple[Any, ...] = (slice(None), number + 1, *self._places[place])
        noise.movedim(self.classes, 1)[where] = 1
        return self.times(noise)

    @cached_property
    def _places(self) -> list[list[int]]:
        return _nonzero(self.scale.movedim(self.classes, 1)[:, 0])


@dataclass(frozen=True)
class ElementRoot:
    """S of units that are single output elements: the roots of their second derivatives, of the outputs' shape."""

    scale: Tensor
    dtype: torch.dtype

    def times(self, noise: Tensor) -> Tensor:
        return (self.scale * noise).to(self.dtype)

    @property
    def columns(self) -> int:
        """One for each output element of an example."""
        return len(self._places)

    def column(self, k: int) -> Tensor:
        noise = torch.zeros_like(self.scale)
        where: tuple[Any, ...] = (slice(None), *self._places[k])
        noise[where] = 1
        return self.times(noise)

    @cached_property
    def _places(self) -> list[list[int]]:
        return _nonzero(self.scale)


def _nonzero(scale: Tensor) -> list[list[int]]:
    """Places within an example where ``scale`` (B, ...) is nonzero for any of the examples."""
    places: list[list[int]] = (scale != 0).any(0).nonzero().tolist()
    return places
