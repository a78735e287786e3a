"""The gradient of one example's output in a weight, in the form in which a layer gives it.

A layer adds to the gradient of its weight, for every example, a sum over rows (tokens, pixels) of outer products
of two things that are known without it: what came in, and the gradient of what went out. The squared norm of such
a sum needs the gradient itself only where that is cheaper than the rows' products with each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Contribution", "Lookup", "Outer", "Patches", "Whole", "gradient", "parts", "squared_norms", "squares"]

_ENTRIES = 1 << 22  # made of some examples at a time; fixed, so that a sum does not depend on the memory that is free


@dataclass(frozen=True)
class Whole:
    """The gradient as it is, (B, *shape)."""

    value: Tensor
    shape: torch.Size

    @property
    def rows(self) -> int:
        """It is no sum of products."""
        return 0

    def gradient(self, examples: slice) -> Tensor:
        """(b, *shape), of some examples."""
        return self.value[examples].reshape(-1, *self.shape)


@dataclass(frozen=True)
class Outer:
    """sum_t left_t right_t^T in each of K blocks: ``left`` (B, K, T, o) and ``right`` (B, K, T, i)."""

    left: Tensor | Patches
    right: Tensor | Patches
    shape: torch.Size

    @property
    def rows(self) -> int:
        """T."""
        return int(self.left.shape[2])

    def gradient(self, examples: slice) -> Tensor:
        """(b, *shape), of some examples."""
        product = self.left[examples].mT @ self.right[examples]
        return product.reshape(-1, *self.shape)


@dataclass(frozen=True)
class Lookup:
    """sum_t e(id_t) right_t^T, e(j) the j-th unit vector: ``ids`` (B, T) and ``right`` (B, T, i)."""

    ids: Tensor
    right: Tensor
    shape: torch.Size

    @property
    def rows(self) -> int:
        """T."""
        return self.ids.shape[1]

    def gradient(self, examples: slice) -> Tensor:
        """(b, *shape), of some examples."""
        ids, right = self.ids[examples], self.right[examples]
        sums = right.new_zeros(len(ids), *self.shape)
        return sums.scatter_add_(1, ids[:, :, None].expand_as(right), right)


class Patches:
    """What a convolution's kernel meets at each place, (B, K, T, i), made of some examples at a time.

    Args:
        x: (B m, channels, ...), m pictures for each of ``batch`` examples.
        batch: B.
        kernel: its size, one for each dimension; ``stride``, ``dilation`` and ``padding`` (before and after) too.
        places: at how many places along each dimension.
        groups: K, of the channels.
    """

    def __init__(
        self,
        x: Tensor,
        batch: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[tuple[int, int]],
        places: Sequence[int],
        groups: int,
    ) -> None:
        self._x = x.reshape(batch, -1, *x.shape[1:])
        self._kernel, self._stride, self._dilation, self._padding = kernel, stride, dilation, padding
        self._places, self._groups = places, groups
        pictures, channels = self._x.shape[1:3]
        entries = channels // groups * math.prod(kernel)
        self.shape = torch.Size((batch, groups, pictures * math.prod(places), entries))

    def __getitem__(self, examples: slice) -> Tensor:
        x = self._x[examples]
        some, pictures = x.shape[:2]
        x = F.pad(x.flatten(0, 1), [size for pair in reversed(self._padding) for size in pair])
        for d, (size, step, spread, places) in enumerate(
            zip(self._kernel, self._stride, self._dilation, self._places, strict=True)
        ):
            x = x.unfold(2 + d, spread * (size - 1) + 1, step).narrow(2 + d, 0, places)[..., ::spread]
        dims = len(self._kernel)
        x = x.reshape(some, pictures, self._groups, -1, *x.shape[2:])
        # To (b, K, channels, *kernel, m, *places): so the copy reads and writes whole lines of a picture.
        order = [0, 2, 3, *range(4 + dims, 4 + 2 * dims), 1, *range(4, 4 + dims)]
        return x.permute(order).reshape(some, self._groups, self.shape[3], self.shape[2]).mT


Contribution = Whole | Outer | Lookup
"""What one use of a weight adds to its gradient, for each of B examples."""


def squared_norms(uses: Sequence[Contribution]) -> Tensor:
    """||sum of what all uses of one weight contribute||^2 for each example, (B,) float64."""
    first = uses[0]
    if len(uses) == 1 and isinstance(first, Outer) and first.rows == 1:
        return (first.left[:].square().sum(-1) * first.right[:].square().sum(-1)).sum((1, 2)).double()
    if all(use.rows for use in uses) and _cost_of_products(uses) < _cost_of_gradient(uses):
        cross = sum(use.rows for use in uses) ** 2
        return _in_parts(uses, cross, lambda some: _by_products(uses, some))
    return _in_parts(uses, first.shape.numel(), lambda some: squares(gradient(uses, some)))


def gradient(uses: Sequence[Contribution], examples: slice) -> Tensor:
    """What all uses of one weight contribute together, (b, *shape)."""
    total = uses[0].gradient(examples)
    for use in uses[1:]:
        total = total + use.gradient(examples)
    return total


def squares(rows: Tensor) -> Tensor:
    """||row||^2 of (b, ...), (b,) float64."""
    return rows.reshape(len(rows), -1).square().sum(1).double()


def parts(examples: int, entries_each: int, limit: int = _ENTRIES) -> Iterator[slice]:
    """Stretches of examples that make no more than ``limit`` entries, if each makes so many."""
    size = max(1, limit // max(entries_each, 1))
    for start in range(0, examples, size):
        yield slice(start, min(start + size, examples))


def _in_parts(uses: Sequence[Contribution], entries_each: int, function: Callable[[slice], Tensor]) -> Tensor:
    made = sum(_made(use) for use in uses)
    return torch.cat([function(some) for some in parts(_examples(uses[0]), 2 * entries_each + made)])


def _examples(use: Contribution) -> int:
    held = use.value if isinstance(use, Whole) else use.right
    return int(held.shape[0])


def _made(use: Contribution) -> int:
    """How many entries are made for an example on the way."""
    sides = (use.left, use.right) if isinstance(use, Outer) else ()
    return sum(side.shape[1:].numel() for side in sides if isinstance(side, Patches))


def _cost_of_gradient(uses: Sequence[Contribution]) -> int:
    """Multiplications for the gradient of one example."""
    size = uses[0].shape.numel()
    return size + sum(size * use.rows if isinstance(use, Outer) else size for use in uses)


def _cost_of_products(uses: Sequence[Contribution]) -> int:
    """Multiplications for the products of all rows of one example with each other."""
    pairs = itertools.combinations_with_replacement(uses, 2)
    return sum(one.rows * other.rows * min(_width(one), _width(other)) for one, other in pairs)


def _width(use: Contribution) -> int:
    if isinstance(use, Outer):
        return int(use.left.shape[1] * (use.left.shape[3] + use.right.shape[3]))
    return use.shape[-1]


def _by_products(uses: Sequence[Contribution], examples: slice) -> Tensor:
    """Sum over t, s of (left_t left_s)(right_t right_s), which is the squared norm of sum_t left_t right_t^T."""
    total: Tensor | None = None
    for (i, one), (j, other) in itertools.combinations_with_replacement(enumerate(uses), 2):
        term = _inner(one, other, examples) * (1 if i == j else 2)
        total = term if total is None else total + term
    assert total is not None
    return total.double()


def _inner(one: Contribution, other: Contribution, examples: slice) -> Tensor:
    """The inner product of what two uses contribute, (b,)."""
    if isinstance(one, Lookup) and isinstance(other, Outer):
        one, other = other, one
    if isinstance(one, Outer) and isinstance(other, Outer):
        lefts = one.left[examples] @ other.left[examples].mT
        return (lefts * (one.right[examples] @ other.right[examples].mT)).sum((1, 2, 3))
    assert isinstance(other, Lookup)
    ids = other.ids[examples]
    if isinstance(one, Outer):
        lefts, rights = one.left[examples][:, 0], one.right[examples][:, 0]
        picked = lefts.gather(2, ids[:, None, :].expand(-1, lefts.shape[1], -1))
        return (picked * (rights @ other.right[examples].mT)).sum((1, 2))
    assert isinstance(one, Lookup)
    same = one.ids[examples][:, :, None] == ids[:, None, :]
    return (same * (one.right[examples] @ other.right[examples].mT)).sum((1, 2))
