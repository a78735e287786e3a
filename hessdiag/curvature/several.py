"""Many products at once, where that is faster: networks of nothing but linear layers and elementwise operations."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from hessdiag.curvature.graph import operations
from hessdiag.memory import out_of_memory

__all__ = ["Product", "Rows", "SharedProduct", "each_product", "gains_by_sharing"]

Rows = Sequence[Tensor | None]
"""H_b v as one tensor for each selected parameter; None stands for zeros."""

Product = Callable[[Tensor], Rows]
"""v (n,), in the problem's vector dtype -> H_b v."""

_AT_ONCE = 8
_LARGEST = 200_000  # parameters; beyond it the time is in the matrix products themselves
_LINEAR = (
    "AccumulateGrad Add Addcmul Addmm Div Elu EluBackward Expand Gelu GeluBackward LeakyRelu LeakyReluBackward "
    "LogSoftmax LogSoftmaxBackwardData Mm Mul NllLoss NllLossBackward Pow Relu ReshapeAlias Select SelectBackward "
    "Sigmoid SigmoidBackward Softplus SoftplusBackward Sub Sum T Tanh TanhBackward ThresholdBackward UnsafeView View "
    "_Activation _Slope"
)
_SHARED = frozenset(_LINEAR.split())


def gains_by_sharing(n: int, gradients: Sequence[Tensor]) -> bool:
    """Whether products through the graph of these gradients are faster many at a time.

    Known by what the operations are: where all are linear layers and elementwise ones the small kernels' overhead is
    paid once for all vectors (1.3 to 1.5 times faster). Convolutions and attention lose, and hold the activations of
    every vector.
    """
    return n <= _LARGEST and operations(gradients) <= _SHARED


class SharedProduct:
    """A product that can also be had of several vectors at once.

    Args:
        one: v (n,) -> H_b v.
        several: V (k, n) -> H_b V, each tensor with k rows.
    """

    def __init__(self, one: Product, several: Callable[[Tensor], Rows]) -> None:
        self._one, self._several = one, several

    def __call__(self, v: Tensor) -> Rows:
        return self._one(v)

    def of(self, V: Tensor) -> Iterator[Rows]:
        """H_b v for each row of V (k, n)."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an operation without batching rule would be slower than one by one
                together = self._several(V)
        except (RuntimeError, UserWarning) as error:
            if out_of_memory(error):
                raise
            yield from map(self._one, V)
            return
        for place in range(len(V)):
            yield [None if rows is None else rows[place] for rows in together]


def each_product(product: Product, vectors: Iterable[Tensor]) -> Iterator[tuple[Tensor, Rows]]:
    """Each of ``vectors`` with H_b v, several at once where that is faster; elsewhere no two are held together.

    The numbers differ from those had one by one by rounding at most.
    """
    if not isinstance(product, SharedProduct):
        yield from ((v, product(v)) for v in vectors)
        return
    waiting = iter(vectors)
    while some := list(itertools.islice(waiting, _AT_ONCE)):
        yield from zip(some, product.of(torch.stack(some)), strict=True)
