"""The optimizer that a spec's ``train:`` names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hessdiag.errors import UsageError
from hessdiag.nso.methods.bsam import BSAM
from hessdiag.nso.methods.displaced import DisplacedOptimizer
from hessdiag.nso.methods.nso import NSO, WPSGD
from hessdiag.nso.methods.plain import Plain
from hessdiag.nso.methods.rsam import RSAM
from hessdiag.nso.methods.rsp import RSP, SAP
from hessdiag.nso.methods.sam import ASAM, SAM
from hessdiag.spec.train import TrainSpec

__all__ = ["make_optimizer"]

_METHODS: dict[str, Callable[..., DisplacedOptimizer]] = {
    "asam": ASAM,
    "label-smoothing": Plain,
    "nso": NSO,
    "rsam": RSAM,
    "rsp": RSP,
    "sam": SAM,
    "sap": SAP,
    "sgd": Plain,
    "wp-sgd": WPSGD,
}
_RANDOM = {"nso", "wp-sgd", "rsam", "rsp", "sap"}  # those that take a seed


def make_optimizer(train: TrainSpec, model: nn.Module, examples: int) -> DisplacedOptimizer:
    """The method around its base optimizer, on the model's parameters that require a gradient.

    Args:
        train: the spec's section.
        model: what is trained.
        examples: of the training data; bsam's noise depends on it.

    Raises:
        UsageError: no such base optimizer, or settings that it does not have.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("found no parameter that requires a gradient, expected something to train", "model")
    if train.method == "bsam":
        return BSAM(
            named,
            lr=train.lr,
            num_examples=examples,
            weight_decay=train.weight_decay,
            seed=train.seed,
            model=model,
            **train.method_options(),
        )
    base = _base(train)
    options = {"lr": train.lr, **_base_options(train, base), **train.method_options()}
    if train.method in _RANDOM:
        options["seed"] = train.seed
    optimizer = _METHODS[train.method](named, base, model=model, clip_norm=train.clip_norm, **options)
    _pull_back(optimizer, train.distance_l2)
    return optimizer


def _base(train: TrainSpec) -> type[Optimizer]:
    found = getattr(torch.optim, train.optimizer.name, None)
    if not (isinstance(found, type) and issubclass(found, Optimizer) and found is not Optimizer):
        known = sorted(name for name, item in vars(torch.optim).items() if isinstance(item, type))
        names = ", ".join(name for name in known if name not in ("LBFGS", "Optimizer"))
        raise UsageError(f"found {train.optimizer.name!r}, expected one of torch.optim: {names}", "train.optimizer")
    return found


def _base_options(train: TrainSpec, base: type[Optimizer]) -> dict[str, Any]:
    """What the base optimizer is given; a setting that is zero is left out where it has no such argument."""
    known = inspect.signature(base).parameters
    options: dict[str, Any] = {}
    for key, value in (("momentum", train.momentum), ("weight_decay", train.weight_decay)):
        if key in known:
            options[key] = value
        elif value:
            raise UsageError(f"found {value:g}, but {base.__name__} has no {key}: leave it out", f"train.{key}")
    own = train.optimizer.options()
    for key in own:
        if key not in known or key in ("params", "lr", *options):
            names = ", ".join(name for name in known if name not in ("params", "lr", *options))
            raise UsageError(f"found option {key!r}, expected those of {base.__name__}: {names}", "train.optimizer")
    return options | own


def _pull_back(optimizer: DisplacedOptimizer, strength: float) -> None:
    """Add the gradient of strength/2 ||w - w0||^2 at w, as weight decay is: not at the displaced weights."""
    if not strength:
        return
    start = [p.detach().clone() for p in optimizer.parameters]

    def pull(*_: Any) -> None:
        for p, origin in zip(optimizer.parameters, start, strict=True):
            if p.grad is not None:
                p.grad.add_(p.detach() - origin, alpha=strength)

    optimizer.base.register_step_pre_hook(pull)
