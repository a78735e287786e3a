"""Running statistics of normalisation layers, which passes at displaced weights must not touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from hessdiag.errors import UsageError

__all__ = ["RunningStatistics"]

_Call = tuple[tuple[Any, ...], Mapping[str, Any], bool, torch.dtype]


class RunningStatistics:
    """What a model's BatchNorm layers have seen: kept from displaced passes, brought up to date by a clean forward.

    Args:
        model: whose forward the closure calls; None: nothing is looked after.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._normalisers = [m for m in (model.modules() if model is not None else ()) if isinstance(m, _NormBase)]
        self._calls: list[_Call] = []

    @property
    def _layers(self) -> list[_NormBase]:
        """Those that would change in a forward pass now."""
        return [m for m in self._normalisers if m.training and m.track_running_stats]

    @contextmanager
    def kept(self, *, remember: bool) -> Iterator[None]:
        """Around a displaced pass: batches are normalised by themselves as in any training pass, nothing is recorded.

        With ``remember`` the model's inputs are, for :meth:`update`.
        """
        layers = self._layers
        if not layers:
            yield
            return
        assert self._model is not None
        self._calls = [] if remember else self._calls
        hook = self._model.register_forward_pre_hook(self._remember, with_kwargs=True) if remember else None
        for layer in layers:
            layer.track_running_stats = False
        try:
            yield
        finally:
            for layer in layers:
                layer.track_running_stats = True
            if hook is not None:
                hook.remove()

    def update(self) -> None:
        """One forward pass, without gradients, over what the model was last given; its weights are as they are now.

        Raises:
            UsageError: the closure did not call the model.
        """
        if not self._layers:
            return
        assert self._model is not None
        if not self._calls:
            raise UsageError("model: the closure never called it, expected the model whose forward the closure runs")
        for args, kwargs, mixed, dtype in self._calls:
            device = next(self._model.parameters()).device.type
            with torch.no_grad(), torch.autocast(device, dtype, enabled=mixed):
                self._model(*args, **kwargs)
        self._calls = []

    def _remember(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        device = next(module.parameters()).device.type
        self._calls.append((args, dict(kwargs), torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)))
