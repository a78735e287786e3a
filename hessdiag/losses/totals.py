"""What a problem asks of a loss, and what its losses have in common."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hessdiag.errors import DataError

__all__ = [
    "Loss",
    "Totals",
    "at_least_float32",
    "check_tensors",
    "class_count",
    "count_of",
    "dtype_name",
    "scalar64",
    "sum_of",
]

Totals = tuple[Tensor, Tensor]


@runtime_checkable
class Loss(Protocol):
    """What a problem asks of a loss."""

    def __call__(self, outputs: Any, targets: Any, examples: int) -> Totals:
        """``(total, count)`` of one batch: a 0-d float64 tensor with its graph, and the denominator's share."""
        ...

    def check(self, outputs: Any, targets: Any) -> None:
        """Raise DataError where targets do not fit the outputs (on a GPU the failure would come too late)."""
        ...


def at_least_float32(outputs: Tensor) -> Tensor:
    """Outputs in the precision that losses are computed in."""
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


def sum_of(units: Tensor) -> Tensor:
    """The sum of unit losses, a 0-d float64 tensor."""
    return units.sum(dtype=torch.float64)


def scalar64(total: Any) -> Tensor:
    """A model's or a function's sum, as a 0-d float64 tensor."""
    if not isinstance(total, Tensor) or total.numel() != 1:
        raise DataError(f"the loss's sum is {total!r}, expected a tensor with one element")
    return total.reshape(()).to(torch.float64)


def count_of(count: float | Tensor, like: Tensor) -> Tensor:
    """A denominator as a 0-d float64 tensor without graph, on the device of ``like``."""
    if isinstance(count, Tensor):
        if count.numel() != 1:
            raise DataError(f"the loss's count has shape {tuple(count.shape)}, expected a number: (sum, count)")
        count = count.reshape(())
    return torch.as_tensor(count, dtype=torch.float64, device=like.device).detach()


def class_count(targets: Tensor, weight: Tensor | None, ignore_index: int, like: Tensor) -> Tensor:
    """The sum of the valid targets' class weights; without ``weight``, their number."""
    valid = targets != ignore_index
    if weight is None:
        return valid.sum().to(torch.float64)
    return sum_of(weight[torch.where(valid, targets, 0)] * valid)


def check_tensors(name: str, outputs: Any, targets: Any) -> None:
    """Raise DataError where outputs or targets are no tensors."""
    logits = ", or an output with .logits (a base model, without its head, has none)"
    for what, item, others in (("outputs", outputs, logits), ("targets", targets, "")):
        if not isinstance(item, Tensor):
            raise DataError(f"{name}: found {what} of type {type(item).__name__}, expected a tensor{others}")


def dtype_name(dtype: torch.dtype) -> str:
    """``int64`` of ``torch.int64``, for messages."""
    return str(dtype).removeprefix("torch.")
