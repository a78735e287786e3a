"""Losses that are not ours: the model's own, and a user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import DataError
from hessdiag.losses.totals import Totals, at_least_float32, class_count, count_of, scalar64, sum_of

__all__ = ["FunctionLoss", "ModelLoss"]


@dataclass(frozen=True)
class ModelLoss:
    """``model``: the model computes the loss itself, given the targets.

    It returns ``(sum, count)``; or an output with ``.loss``, taken as the mean over the valid targets.
    """

    ignore_index: int = -100

    def __call__(self, outputs: Any, targets: Any, examples: int) -> Totals:
        mean = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else getattr(outputs, "loss", None)
        if mean is None and isinstance(outputs, tuple) and len(outputs) == 2:
            total, count = outputs
            return scalar64(total), count_of(count, total)
        if not isinstance(mean, Tensor):
            raise DataError(
                f"loss 'model': the model returned a {type(outputs).__name__}, "
                "expected (sum, count) or an output with .loss"
            )
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return scalar64(mean) * examples, count_of(examples, mean)
        count = class_count(targets, None, self.ignore_index, mean)
        if not count:  # the mean over nothing is NaN, and so would be 0 times it
            return torch.zeros_like(count), count
        return scalar64(mean) * count, count

    def check(self, outputs: Any, targets: Any) -> None:
        if "CausalLM" in type(outputs).__name__:
            raise DataError(
                "loss 'model': a causal language model shifts its labels inside, so the count of its targets "
                "is not the number of labels: use loss 'causal_lm' instead"
            )


@dataclass(frozen=True)
class FunctionLoss:
    """A user's ``loss(outputs, targets)``: a vector of unit losses, ``(sum, count)``, or a mean over examples."""

    function: Callable[[Any, Any], Any]

    def __call__(self, outputs: Any, targets: Any, examples: int) -> Totals:
        result = self.function(at_least_float32(outputs) if isinstance(outputs, Tensor) else outputs, targets)
        if isinstance(result, tuple) and len(result) == 2:
            return scalar64(result[0]), count_of(result[1], result[0])
        if not isinstance(result, Tensor):
            raise DataError(
                f"the loss function returned a {type(result).__name__}, "
                "expected a vector of unit losses, (sum, count), or a scalar mean over the examples"
            )
        if result.ndim == 0:
            return scalar64(result) * examples, count_of(examples, result)
        return sum_of(result), count_of(result.numel(), result)

    def check(self, outputs: Any, targets: Any) -> None:
        """Nothing is known of what a user's function takes."""
