"""Batches of texts: which of their cells are padding, so that a fingerprint does not show the longest of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from hessdiag.problem.structure import leaves

__all__ = ["IGNORED", "without_padding"]

IGNORED = -100
"""The target that stands at padding: what torch's cross-entropy ignores."""


def without_padding(item: dict[str, Any]) -> dict[str, Any]:
    """``{"inputs": ..., "targets": ...}`` with the cells of texts alone, row after row, and the rows' lengths.

    Padding is what follows a row's last attended cell and its last target, where the inputs are a mapping with an
    ``attention_mask`` (B, T) of whole numbers; a row in which nothing is attended has none. It is taken away from
    whole-number inputs and from targets of the mask's shape; anything else is left as it is.
    """
    inputs, targets = item["inputs"], item["targets"]
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not _is_mask(mask):
        return item
    lengths = _lengths(mask, [leaf for _, leaf in leaves(targets) if _has_shape(leaf, mask)])
    kept = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]

    def cells(leaf: Any) -> Any:
        return leaf[kept.to(leaf.device)] if _has_shape(leaf, mask) else leaf

    # Features may have the mask's shape by chance.
    real = {name for name, leaf in inputs.items() if isinstance(leaf, Tensor) and leaf.is_floating_point()}
    return {
        "inputs": {name: leaf if name in real else cells(leaf) for name, leaf in inputs.items()},
        "targets": cells(targets),
        "lengths": lengths,
    }


def _is_mask(leaf: Any) -> TypeGuard[Tensor]:
    return (
        isinstance(leaf, Tensor)
        and leaf.layout is torch.strided
        and leaf.ndim == 2
        and leaf.numel() > 0
        and not leaf.is_floating_point()
    )


def _has_shape(leaf: Any, mask: Tensor) -> TypeGuard[Tensor]:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.shape == mask.shape


def _lengths(mask: Tensor, labels: list[Tensor]) -> Tensor:
    """Of every row, how many cells are no padding, shape (B,)."""
    numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = ((mask != 0) * numbers).amax(1)
    last = torch.where(last == 0, mask.shape[1], last)
    for targets in labels:
        last = torch.maximum(last, ((targets.to(mask.device) != IGNORED) * numbers).amax(1))
    return last
