"""Calls that give examples other places in a batch, as the data say: sorting by length, or by experts that take them.

A rule of :mod:`hessdiag.curvature.layers` knows examples by their places. Where these depend on the data, what is
right for one batch may be wrong for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["reorders"]

_FLAT = {"masked_select", "masked_scatter", "masked_scatter_", "put", "put_", "take"}
_READS = {"gather", "index_select", "take_along_dim"}
_WRITES = {
    f"{name}{ending}"
    for name in ("index_add", "index_copy", "index_reduce", "scatter", "scatter_add", "scatter_reduce")
    for ending in ("", "_")
}


def reorders(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], marked: Callable[[Any], bool], examples: int
) -> bool:
    """Whether a call may move examples.

    Args:
        func: of torch.
        args: of the call, as are ``kwargs``.
        kwargs: by name.
        marked: whether a tensor comes from the data; to look something up elsewhere moves no example.
        examples: in the batch.
    """
    name = getattr(func, "__name__", "")
    source = args[0] if args else kwargs.get("input")
    if not isinstance(source, Tensor):
        return False
    if name == "__getitem__":
        return marked(source) and _elsewhere(args[1], examples)
    if name in ("__setitem__", "index_put", "index_put_"):
        index, value = args[1:3]
        return isinstance(value, Tensor) and value.ndim > 0 and _elsewhere(index, examples)
    if name in _FLAT:
        return marked(source)
    if name in _READS or name in _WRITES:
        dim = args[1] if len(args) > 1 and isinstance(args[1], int) else kwargs.get("dim", 0)
        first = dim is None or dim % max(source.ndim, 1) == 0
        return first and (name in _WRITES or marked(source))
    return False


def _elsewhere(index: Any, examples: int) -> bool:
    """Whether an index picks rows of the first dimension by a tensor, and not each example's own."""
    first = index[0] if isinstance(index, (tuple, list)) and len(index) else index
    if isinstance(first, (list, range)):
        return True
    if not isinstance(first, Tensor) or first.ndim == 0:
        return False
    if first.dtype in (torch.bool, torch.uint8) or len(first) != examples:
        return True
    own = torch.arange(examples, device=first.device).view(-1, *[1] * (first.ndim - 1))
    return not bool((first == own).all())
