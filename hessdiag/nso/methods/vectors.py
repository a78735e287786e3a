"""Vectors that are kept as a tensor for each parameter: norms, products, projections, over all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["dot", "filter_norms", "norm", "of_length", "without"]


def norm(vector: Sequence[Tensor]) -> Tensor:
    """||v||, from the tensors' norms in at least float32."""
    norms = [torch.linalg.vector_norm(part, dtype=_at_least_float32(part)) for part in vector]
    length: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return length


def of_length(vector: Sequence[Tensor], lengths: Sequence[float]) -> list[Tensor] | None:
    """Each tensor of v / ||v|| times its length; None where ||v|| is 0 or not finite."""
    whole = float(norm(vector))
    if not 0 < whole < float("inf"):
        return None
    return [part * (length / whole) for part, length in zip(vector, lengths, strict=True)]


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """<a, b>, summed in at least float32."""
    return torch.stack([(a * b).sum(dtype=_at_least_float32(a)) for a, b in zip(left, right, strict=True)]).sum()


def without(vector: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
    """The part of v that is orthogonal to G, v - G <G, v> / ||G||^2; v where G is 0."""
    length = float(dot(direction, direction))
    if length == 0:
        return list(vector)
    share = float(dot(direction, vector)) / length
    return [v - share * g for v, g in zip(vector, direction, strict=True)]


def filter_norms(weights: Tensor) -> Tensor:
    """The norm of each filter, one output unit's weights, shaped to multiply ``weights``; of a vector as a whole."""
    every = tuple(range(1, weights.ndim)) or None
    norms: Tensor = torch.linalg.vector_norm(weights, dim=every, keepdim=True)
    return norms


def _at_least_float32(part: Tensor) -> torch.dtype:
    return torch.promote_types(part.dtype, torch.float32)
