"""Where a model is random although it is in evaluation mode: the first module that answers twice differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["find_random_module"]

_Record = list[tuple[str, str, list[Tensor]]]  # ("in" or "out", module, tensors), in the order of events


def find_random_module(model: nn.Module, run: Callable[[], Any]) -> str:
    """Name the place where two runs on the same batch part, for a message.

    Args:
        model: the model.
        run: calls the model on one batch.

    Returns:
        ``"layers.1.drop (MyDropout)"``, or a plain statement where no module is to blame.
    """
    first, second = _recorded(model, run), _recorded(model, run)
    for (side, name, tensors), (_, _, others) in zip(first, second, strict=False):
        if _same(tensors, others):
            continue
        if side == "out":
            return f"in {_named(model, name)}"
        if name:
            parent = name.rpartition(".")[0]
            return f"in the forward of {_named(model, parent)}, before {_named(model, name)}"
    return "in the loss, or between the modules"


def _recorded(model: nn.Module, run: Callable[[], Any]) -> _Record:
    record: _Record = []

    def watch(name: str, module: nn.Module) -> list[RemovableHandle]:
        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            record.append(("in", name, _tensors((args, kwargs))))

        def after(_: nn.Module, args: Any, outputs: Any) -> None:
            record.append(("out", name, _tensors(outputs)))

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]

    handles: list[RemovableHandle] = []
    try:
        for name, module in model.named_modules():
            handles += watch(name, module)
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return record


def _tensors(item: Any) -> list[Tensor]:
    if isinstance(item, Tensor):
        return [item.detach().clone()]
    if isinstance(item, dict):
        item = tuple(item.values())
    if isinstance(item, (tuple, list)):
        return [tensor for part in item for tensor in _tensors(part)]
    return []


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in zip(left, right, strict=True)
    )


def _named(model: nn.Module, name: str) -> str:
    module = model.get_submodule(name)
    return f"{name} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
