"""Each loss as a sum over units and a count of units, so that batches add up exactly.

A unit is whatever the loss averages over: an example, a valid token, a class-weighted example. For a
batch B the pair ``(total, count)`` is ``(sum_{u in B} w_u loss_u, sum_{u in B} w_u)``; the loss of the whole
data is sum of totals over sum of counts, whichever way the data are split. Totals are float64 scalars that
carry the graph; unit losses are computed in at least float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessdiag.errors import DataError, UsageError

__all__ = [
    "LOSSES",
    "BCEWithLogits",
    "CausalLM",
    "CrossEntropy",
    "FunctionLoss",
    "Loss",
    "MeanSquaredError",
    "ModelLoss",
    "NegativeLogLikelihood",
    "as_loss",
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
        logits, targets = _at_least_float32(outputs), _class_numbers(outputs, targets)
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
            return _sum(units), _count(units.numel(), logits)
        return _sum(units), _class_count(targets, weight, self.ignore_index, logits)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_tensors("cross_entropy", outputs, targets)
        if not targets.is_floating_point():
            targets = _class_numbers(outputs, targets)
            _check_classes(outputs, targets, self.ignore_index, self.weight)
        elif targets.shape != outputs.shape:
            raise DataError(
                f"cross_entropy: found targets {tuple(targets.shape)} of type {_name(targets.dtype)}, expected int64 "
                f"class numbers, or probabilities of the outputs' shape {tuple(outputs.shape)}"
            )
        else:
            _check_weights(outputs, self.weight)


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """``nll``: as cross_entropy, on outputs that are log-probabilities already."""

    ignore_index: int = -100
    weight: tuple[float, ...] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logs = _at_least_float32(outputs)
        weight = None if self.weight is None else logs.new_tensor(self.weight)
        units = F.nll_loss(logs, targets, weight=weight, ignore_index=self.ignore_index, reduction="none")
        return _sum(units), _class_count(targets, weight, self.ignore_index, logs)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_tensors("nll", outputs, targets)
        _check_classes(outputs, targets, self.ignore_index, self.weight)


@dataclass(frozen=True)
class CausalLM:
    """Next-token cross-entropy: outputs (B, T, V) predict targets (B, T) shifted by one, inside.

    The denominator is the number of target tokens that are not ``ignore_index``.
    """

    ignore_index: int = -100
    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logits = _at_least_float32(outputs)[:, :-1].flatten(0, 1)
        following = targets[:, 1:].flatten()
        units = F.cross_entropy(
            logits,
            following,
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return _sum(units), _class_count(following, None, self.ignore_index, logits)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_tensors("causal_lm", outputs, targets)
        if outputs.ndim != 3 or outputs.shape[:2] != targets.shape:
            raise DataError(
                f"causal_lm: found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, "
                "expected (batch, time, vocabulary) and (batch, time)"
            )
        _check_classes(outputs.transpose(1, 2), targets, self.ignore_index, None)


@dataclass(frozen=True)
class MeanSquaredError:
    """``mse``: the mean over examples of the mean over an example's output elements."""

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        outputs = _at_least_float32(outputs)
        squared = (outputs - targets.reshape(outputs.shape).to(outputs.dtype)) ** 2
        units = squared.flatten(1).mean(1) if squared.ndim > 1 else squared
        return _sum(units), _count(units.numel(), outputs)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_same_elements("mse", outputs, targets)


@dataclass(frozen=True)
class BCEWithLogits:
    """Binary cross-entropy on logits: the mean over all output elements, positives times ``pos_weight``."""

    pos_weight: tuple[float, ...] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor, examples: int) -> Totals:
        logits = _at_least_float32(outputs)
        units = F.binary_cross_entropy_with_logits(
            logits,
            targets.reshape(logits.shape).to(logits.dtype),
            pos_weight=None if self.pos_weight is None else logits.new_tensor(self.pos_weight),
            reduction="none",
        )
        return _sum(units), _count(units.numel(), logits)

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
            return _scalar64(total), _count(count, total)
        if not isinstance(mean, Tensor):
            raise DataError(
                f"loss 'model': the model returned a {type(outputs).__name__}, "
                "expected (sum, count) or an output with .loss"
            )
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return _scalar64(mean) * examples, _count(examples, mean)
        count = _class_count(targets, None, self.ignore_index, mean)
        if not count:  # the mean over nothing is NaN, and so would be 0 times it
            return torch.zeros_like(count), count
        return _scalar64(mean) * count, count

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
        result = self.function(_at_least_float32(outputs) if isinstance(outputs, Tensor) else outputs, targets)
        if isinstance(result, tuple) and len(result) == 2:
            return _scalar64(result[0]), _count(result[1], result[0])
        if not isinstance(result, Tensor):
            raise DataError(
                f"the loss function returned a {type(result).__name__}, "
                "expected a vector of unit losses, (sum, count), or a scalar mean over the examples"
            )
        if result.ndim == 0:
            return _scalar64(result) * examples, _count(examples, result)
        return _sum(result), _count(result.numel(), result)

    def check(self, outputs: Any, targets: Any) -> None:
        """Nothing is known of what a user's function takes."""


LOSSES: dict[str, Callable[..., Loss]] = {
    "bce_with_logits": BCEWithLogits,
    "causal_lm": CausalLM,
    "cross_entropy": CrossEntropy,
    "model": ModelLoss,
    "mse": MeanSquaredError,
    "nll": NegativeLogLikelihood,
}


def as_loss(loss: str | Mapping[str, Any] | Loss | Callable[[Any, Any], Any]) -> Loss:
    """A loss from its name, a mapping as in a spec, torch's own loss modules and functions, or a user's function.

    torch's ``nn.CrossEntropyLoss``, ``nn.MSELoss``, ``nn.BCEWithLogitsLoss`` and ``nn.NLLLoss`` (reduction
    ``mean``) become the losses here with the same options, so that their denominators stay right.

    Raises:
        UsageError: an unknown name or option, or a torch loss that is no mean.
    """
    if isinstance(loss, str):
        return _named(loss, {})
    if isinstance(loss, Mapping):
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in loss.items()}
        return _named(options.pop("name", None), options)
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, nn.modules.loss._Loss):
        return _from_module(loss)
    if isinstance(loss, Hashable) and loss in _FUNCTIONS:
        return _FUNCTIONS[loss]()
    if callable(loss):
        return FunctionLoss(loss)
    raise UsageError(f"loss: found a {type(loss).__name__}, expected a name or a function (outputs, targets)")


def _named(name: Any, options: dict[str, Any]) -> Loss:
    if name not in LOSSES:
        raise UsageError(f"loss: found {name!r}, expected one of {', '.join(LOSSES)}, or a function")
    try:
        return LOSSES[name](**options)
    except TypeError:
        known = ", ".join(inspect.signature(LOSSES[name]).parameters) or "none"
        raise UsageError(f"loss: found options {', '.join(options)}, expected those of {name}: {known}") from None


_FUNCTIONS: dict[Any, Callable[[], Loss]] = {
    F.cross_entropy: CrossEntropy,
    F.mse_loss: MeanSquaredError,
    F.binary_cross_entropy_with_logits: BCEWithLogits,
    F.nll_loss: NegativeLogLikelihood,
}


def _from_module(module: nn.modules.loss._Loss) -> Loss:
    if module.reduction != "mean":
        raise UsageError(f"loss: found {module} with reduction {module.reduction!r}, expected reduction 'mean'")
    weight = getattr(module, "weight", None)
    weights = None if weight is None else tuple(weight.tolist())
    # The very classes: a subclass computes what it likes.
    if type(module) is nn.CrossEntropyLoss:
        return CrossEntropy(module.ignore_index, module.label_smoothing, weights)
    if type(module) is nn.NLLLoss:
        return NegativeLogLikelihood(module.ignore_index, weights)
    if type(module) is nn.MSELoss:
        return MeanSquaredError()
    if type(module) is nn.BCEWithLogitsLoss and weights is None:
        positive = module.pos_weight
        if positive is None or positive.ndim <= 1:  # more dimensions weigh others than the last one
            return BCEWithLogits(None if positive is None else tuple(positive.reshape(-1).tolist()))
    return FunctionLoss(module)


def _class_numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class numbers (B, 1), as tables give them, as (B,) where the outputs are (B, C)."""
    if outputs.ndim == 2 and targets.shape == (len(outputs), 1) and not targets.is_floating_point():
        return targets[:, 0]
    return targets


def _at_least_float32(outputs: Tensor) -> Tensor:
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


def _sum(units: Tensor) -> Tensor:
    return units.sum(dtype=torch.float64)


def _scalar64(total: Any) -> Tensor:
    if not isinstance(total, Tensor) or total.numel() != 1:
        raise DataError(f"the loss's sum is {total!r}, expected a tensor with one element")
    return total.reshape(()).to(torch.float64)


def _count(count: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(count, Tensor):
        if count.numel() != 1:
            raise DataError(f"the loss's count has shape {tuple(count.shape)}, expected a number: (sum, count)")
        count = count.reshape(())
    return torch.as_tensor(count, dtype=torch.float64, device=like.device).detach()


def _class_count(targets: Tensor, weight: Tensor | None, ignore_index: int, like: Tensor) -> Tensor:
    valid = targets != ignore_index
    if weight is None:
        return valid.sum().to(torch.float64)
    return _sum(weight[torch.where(valid, targets, 0)] * valid)


def _check_classes(outputs: Tensor, targets: Tensor, ignore_index: int, weight: tuple[float, ...] | None) -> None:
    expected = (outputs.shape[0], *outputs.shape[2:])
    if outputs.ndim < 2 or tuple(targets.shape) != expected:
        raise DataError(
            f"found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, expected "
            f"outputs (batch, classes, ...) and targets (batch, ...) of class numbers"
        )
    if targets.dtype is not torch.int64:
        raise DataError(f"found targets of type {_name(targets.dtype)}, expected int64 class numbers")
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


def _check_tensors(name: str, outputs: Any, targets: Any) -> None:
    logits = ", or an output with .logits (a base model, without its head, has none)"
    for what, item, others in (("outputs", outputs, logits), ("targets", targets, "")):
        if not isinstance(item, Tensor):
            raise DataError(f"{name}: found {what} of type {type(item).__name__}, expected a tensor{others}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_same_elements(name: str, outputs: Tensor, targets: Tensor) -> None:
    _check_tensors(name, outputs, targets)

    def trimmed(shape: torch.Size) -> list[int]:
        return [size for size in shape[1:] if size != 1]

    if outputs.shape[:1] != targets.shape[:1] or trimmed(outputs.shape) != trimmed(targets.shape):
        raise DataError(
            f"{name}: found outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, expected the same shape"
        )
