"""Losses of classes: cross-entropy, its form on log-probabilities, and that of the next token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hessdiag.errors import DataError
from hessdiag.losses.roots import SoftmaxRoot
from hessdiag.losses.totals import (
    Totals,
    at_least_float32,
    check_tensors,
    class_count,
    count_of,
    dtype_name,
    sum_of,
)

__all__ = ["CausalLM", "CrossEntropy", "NegativeLogLikelihood"]


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy; outputs (B, C, ...) are logits, targets (B, ...) classes or (B, C, ...) probabilities.

    The denominator is torch's: the sum of the class weights of the valid targets (their number, without
    ``weight``); with probabilities as targets, the number of units.
    """

    ignore_index: int = -100
    label_smoothing: float = 0.0
    weight: tuple[float, ...] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logits, targets = at_least_float32(outputs), _class_numbers(outputs, targets)
        weight = None if self.weight is None else logits.new_tensor(self.weight)
        units = F.cross_entropy(
            logits,
            targets,
            weight=weight,
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        if targets.is_floating_point():
            return sum_of(units), count_of(units.numel(), logits)
        return sum_of(units), class_count(targets, weight, self.ignore_index, logits)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        check_tensors("cross_entropy", outputs, targets)
        if not targets.is_floating_point():
            targets = _class_numbers(outputs, targets)
            _check_classes(outputs, targets, self.ignore_index, self.weight)
        elif targets.shape != outputs.shape:
            raise DataError(
                f"cross_entropy: found targets {tuple(targets.shape)} of type {dtype_name(targets.dtype)}, expected "
                f"int64 class numbers, or probabilities of the outputs' shape {tuple(outputs.shape)}"
            )
        else:
            _check_weights(outputs, self.weight)

    def root(self, outputs: Tensor, targets: Tensor) -> SoftmaxRoot:
        """With loss_u = sum_c q_c (-log p_c) it is d^2 loss_u / dz^2 = (sum_c q_c) (diag p - p p^T)."""
        logits = at_least_float32(outputs.detach())
        shares = self._unit_weights(logits, targets)
        return SoftmaxRoot(logits.softmax(1), shares.sqrt().unsqueeze(1), 1, outputs.dtype)

    def why_not_convex(self, outputs: Tensor, targets: Tensor) -> str | None:
        return _why_negative(self._unit_weights(at_least_float32(outputs.detach()), targets))

    def _unit_weights(self, logits: Tensor, targets: Tensor) -> Tensor:
        """sum_c q_c of every unit, (B, ...): what its row of log-probabilities is weighted by in all."""
        weight = logits.new_ones(logits.shape[1]) if self.weight is None else logits.new_tensor(self.weight)
        targets = _class_numbers(logits, targets)
        if targets.is_floating_point():
            smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
            return smoothed.movedim(1, -1).to(weight.dtype) @ weight
        valid = targets != self.ignore_index
        own = weight[torch.where(valid, targets, 0)]
        return ((1 - self.label_smoothing) * own + self.label_smoothing * weight.mean()) * valid


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """``nll``: as cross_entropy, on outputs that are log-probabilities already."""

    ignore_index: int = -100
    weight: tuple[float, ...] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logs = at_least_float32(outputs)
        weight = None if self.weight is None else logs.new_tensor(self.weight)
        units = F.nll_loss(logs, targets, weight=weight, ignore_index=self.ignore_index, reduction="none")
        return sum_of(units), class_count(targets, weight, self.ignore_index, logs)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        check_tensors("nll", outputs, targets)
        _check_classes(outputs, targets, self.ignore_index, self.weight)

    def convex(self) -> CrossEntropy:
        """The same loss as one that is convex in the outputs: on log-probabilities z is log softmax(z) = z."""
        return _OnLogProbabilities(self.ignore_index, weight=self.weight)


class _OnLogProbabilities(CrossEntropy):
    def why_not_convex(self, outputs: Tensor, targets: Tensor) -> str | None:
        total = at_least_float32(outputs.detach()).logsumexp(1)
        if total.numel() and not float(total.abs().max()) <= min(1e3 * torch.finfo(outputs.dtype).eps, 0.05):
            return "the outputs are no log-probabilities: their exponentials do not add up to 1"
        return super().why_not_convex(outputs, targets)


@dataclass(frozen=True)
class CausalLM:
    """Next-token cross-entropy: outputs (B, T, V) predict targets (B, T) shifted by one, inside.

    The denominator is the number of target tokens that are not ``ignore_index``.
    """

    ignore_index: int = -100
    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logits = at_least_float32(outputs)[:, :-1].flatten(0, 1)
        following = targets[:, 1:].flatten()
        units = F.cross_entropy(
            logits,
            following,
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return sum_of(units), class_count(following, None, self.ignore_index, logits)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        check_tensors("causal_lm", outputs, targets)
        if outputs.ndim != 3 or outputs.shape[:2] != targets.shape:
            raise DataError(
                f"causal_lm: found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, "
                "expected (batch, time, vocabulary) and (batch, time)"
            )
        _check_classes(outputs.transpose(1, 2), targets, self.ignore_index, None)

    def root(self, outputs: Tensor, targets: Tensor) -> SoftmaxRoot:
        valid = torch.zeros_like(targets, dtype=torch.bool)
        valid[:, :-1] = targets[:, 1:] != self.ignore_index
        logits = at_least_float32(outputs.detach())
        return SoftmaxRoot(logits.softmax(2), valid.to(logits.dtype).unsqueeze(2), 2, outputs.dtype)

    def why_not_convex(self, outputs: Tensor, targets: Tensor) -> str | None:
        return None


def _why_negative(weights: Tensor) -> str | None:
    if weights.numel() and float(weights.min()) < 0:
        return "a class weight or a target's probability is below 0"
    return None


def _class_numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class numbers (B, 1), as tables give them, as (B,) where the outputs are (B, C)."""
    if outputs.ndim == 2 and targets.shape == (len(outputs), 1) and not targets.is_floating_point():
        return targets[:, 0]
    return targets


def _check_classes(outputs: Tensor, targets: Tensor, ignore_index: int, weight: tuple[float, ...] | None) -> None:
    expected = (outputs.shape[0], *outputs.shape[2:])
    if outputs.ndim < 2 or tuple(targets.shape) != expected:
        raise DataError(
            f"found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, expected "
            f"outputs (batch, classes, ...) and targets (batch, ...) of class numbers"
        )
    if targets.dtype is not torch.int64:
        raise DataError(f"found targets of type {dtype_name(targets.dtype)}, expected int64 class numbers")
    classes = outputs.shape[1]
    _check_weights(outputs, weight)
    valid = targets[targets != ignore_index]
    if valid.numel() and (int(valid.min()) < 0 or int(valid.max()) >= classes):
        raise DataError(
            f"found targets from {int(valid.min())} to {int(valid.max())}, expected class numbers from 0 to "
            f"{classes - 1}: the model has {classes} outputs"
        )


def _check_weights(outputs: Tensor, weight: tuple[float, ...] | None) -> None:
    classes = outputs.shape[1] if outputs.ndim > 1 else 0
    if weight is not None and len(weight) != classes:
        raise DataError(f"found {len(weight)} class weights, expected one for each of the {classes} classes")
