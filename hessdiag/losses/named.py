"""A loss from its name, from torch's own, or from a user's function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from torch import nn
from torch.nn import functional as F

from hessdiag.errors import UsageError
from hessdiag.losses.classes import CausalLM, CrossEntropy, NegativeLogLikelihood
from hessdiag.losses.elements import BCEWithLogits, MeanSquaredError
from hessdiag.losses.own import FunctionLoss, ModelLoss
from hessdiag.losses.roots import ConvexLoss
from hessdiag.losses.totals import Loss

__all__ = ["LOSSES", "as_loss", "convex_form"]

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


def convex_form(loss: Loss) -> ConvexLoss | None:
    """The loss as one that is convex in the outputs, of the same value; None where there is no such form."""
    if isinstance(loss, NegativeLogLikelihood):
        return loss.convex()
    return loss if isinstance(loss, ConvexLoss) else None


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
