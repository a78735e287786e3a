"""Losses of single output elements: squared error and binary cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hessdiag.errors import DataError
from hessdiag.losses.totals import Totals, at_least_float32, check_tensors, count_of, sum_of

__all__ = ["BCEWithLogits", "MeanSquaredError"]


@dataclass(frozen=True)
class MeanSquaredError:
    """``mse``: the mean over examples of the mean over an example's output elements."""

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        outputs = at_least_float32(outputs)
        squared = (outputs - targets.reshape(outputs.shape).to(outputs.dtype)) ** 2
        units = squared.flatten(1).mean(1) if squared.ndim > 1 else squared
        return sum_of(units), count_of(units.numel(), outputs)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_same_elements("mse", outputs, targets)


@dataclass(frozen=True)
class BCEWithLogits:
    """Binary cross-entropy on logits: the mean over all output elements, positives times ``pos_weight``."""

    pos_weight: tuple[float, ...] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logits = at_least_float32(outputs)
        units = F.binary_cross_entropy_with_logits(
            logits,
            targets.reshape(logits.shape).to(logits.dtype),
            pos_weight=None if self.pos_weight is None else logits.new_tensor(self.pos_weight),
            reduction="none",
        )
        return sum_of(units), count_of(units.numel(), logits)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_same_elements("bce_with_logits", outputs, targets)
        # The batch is no output: a weight for each example would depend on the split.
        last = outputs.shape[-1] if outputs.ndim > 1 else 1
        if self.pos_weight is not None and len(self.pos_weight) not in (1, last):
            raise DataError(
                f"bce_with_logits: found {len(self.pos_weight)} pos_weight, expected one for each of the {last} outputs"
            )
        if not targets.numel():
            return
        low, high = float(targets.min()), float(targets.max())
        if low < 0 or high > 1:
            raise DataError(f"bce_with_logits: found targets from {low:g} to {high:g}, expected them within [0, 1]")


def _check_same_elements(name: str, outputs: Tensor, targets: Tensor) -> None:
    check_tensors(name, outputs, targets)

    def trimmed(shape: torch.Size) -> list[int]:
        return [size for size in shape[1:] if size != 1]

    if outputs.shape[:1] != targets.shape[:1] or trimmed(outputs.shape) != trimmed(targets.shape):
        raise DataError(
            f"{name}: found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, expected the same shape"
        )
