"""Leave a model as it was found: flags, buffers, weights and random state, bit for bit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["as_found", "weights_restored"]


@contextmanager
def as_found(model: nn.Module, selected: Collection[nn.Parameter]) -> Iterator[None]:
    """Evaluation mode, gradients for ``selected`` alone; everything put back afterwards, whatever happens.

    Hooks on the selected parameters are off meanwhile: one that clips or masks a gradient for training would
    change the derivative of the loss. Gradients are never accumulated into ``.grad`` anywhere in this package,
    so they need no saving.
    """
    training = {module: module.training for module in model.modules()}
    wanted = {id(parameter) for parameter in selected}
    requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    hooks = [(parameter, parameter._backward_hooks) for parameter in selected]
    # A forward may fill a buffer anew or put another tensor in its place: both are undone.
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    contents = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(index for index in devices if index is not None)):
        try:
            model.eval()
            for parameter, _ in requires_grad:
                parameter.requires_grad_(id(parameter) in wanted)
            for parameter, _ in hooks:
                parameter._backward_hooks = None
            yield
        finally:
            for module, flag in training.items():
                module.training = flag
            for parameter, flag in requires_grad:
                parameter.requires_grad_(flag)
            for parameter, own in hooks:
                parameter._backward_hooks = own
            with torch.no_grad():
                for module, named in buffers:
                    module._buffers.clear()
                    module._buffers.update(named)
                for buffer, saved in contents:
                    if not torch.equal(buffer, saved):  # an expanded buffer cannot be written to
                        buffer.copy_(saved)


@contextmanager
def weights_restored(parameters: Collection[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Give a copy of the weights, and write it back at the end: never undone by subtracting."""
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        yield saved
    finally:
        with torch.no_grad():
            for parameter, copy in zip(parameters, saved, strict=True):
                parameter.copy_(copy)
