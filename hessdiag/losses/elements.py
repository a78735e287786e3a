"""Losses of single output elements: squared error and binary cross-entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hessdiag.errors import DataError
from hessdiag.losses.roots import ElementRoot
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

    def root(self, outputs: Tensor, targets: Tensor) -> ElementRoot:
        """The second derivative of the mean of K squares is 2/K in each of them."""
        elements = outputs[0].numel() if outputs.ndim > 1 else 1
        scale = torch.full_like(at_least_float32(outputs.detach()), math.sqrt(2 / elements))
        return ElementRoot(scale, outputs.dtype)

    def why_not_convex(self, outputs: Tensor, targets: Tensor) -> str | None:
        return None


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

    def root(self, outputs: Tensor, targets: Tensor) -> ElementRoot:
        """The second derivative of an element with target y is (1 - y + y pos_weight) p (1 - p)."""
        logits = at_least_float32(outputs.detach())
        return ElementRoot(
            (self._weights(logits, targets) * logits.sigmoid() * (-logits).sigmoid()).sqrt(), outputs.dtype
        )

    def why_not_convex(self, outputs: Tensor, targets: Tensor) -> str | None:
        weights = self._weights(at_least_float32(outputs.detach()), targets)
        return "a pos_weight is below 0" if weights.numel() and float(weights.min()) < 0 else None

    def _weights(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of every element, by how much its log-probabilities are weighted in all."""
        y = targets.reshape(logits.shape).to(logits.dtype)
        return 1 - y + y * (1 if self.pos_weight is None else logits.new_tensor(self.pos_weight))


def _check_same_elements(name: str, outputs: Tensor, targets: Tensor) -> None:
    check_tensors(name, outputs, targets)

    def trimmed(shape: torch.Size) -> list[int]:
        return [size for size in shape[1:] if size != 1]

    if outputs.shape[:1] != targets.shape[:1] or trimmed(outputs.shape) != trimmed(targets.shape):
        raise DataError(
            f"{name}: found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, expected the same shape"
        )
