"""The model of a spec: built by its factory and filled from its checkpoint, or whole from a checkpoint of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hessdiag.errors import UsageError
from hessdiag.loading.checkpoints import Reading, load_into, load_whole
from hessdiag.loading.references import call_reference, import_reference, kind_of
from hessdiag.results import CheckpointInfo
from hessdiag.spec.schema import ModelSpec

__all__ = ["load_model"]

_KEY = "model.class_path"


def load_model(
    spec: ModelSpec, resolve: Callable[[str], Path], reading: Reading, dtype: torch.dtype | None = None
) -> tuple[nn.Module, CheckpointInfo | None]:
    """The model with its weights, on the CPU, and what the report says of the checkpoint.

    Args:
        spec: what stands under ``model:``.
        resolve: finds the files that it names.
        reading: what the person at the keyboard allows; the spec's own choices are put over it.
        dtype: in which the model will be measured; float64 weights stay what they are then.

    Raises:
        UsageError: no such factory, or it does not build an ``nn.Module``; or none is named, and the checkpoint
            holds weights alone.
        HessdiagError: the factory raised.
        CheckpointError: damaged, refused, or not fitting.
    """
    loaded = _loaded(spec, resolve, reading, dtype)
    if spec.trained is None:
        return loaded
    return load_into(loaded[0], resolve(spec.trained), spec.trained, reading)


def _loaded(
    spec: ModelSpec, resolve: Callable[[str], Path], reading: Reading, dtype: torch.dtype | None
) -> tuple[nn.Module, CheckpointInfo | None]:
    base = None if spec.base is None else resolve(spec.base)
    reading = replace(reading, weights=spec.weights, adapter=spec.adapter, base=base)
    model = None if spec.class_path is None else _build(spec, spec.class_path, resolve)
    if model is not None and dtype == torch.float64:
        model = model.double()  # before the weights are copied into it, which may be in float64 too
    if spec.checkpoint is None:
        assert model is not None  # the spec names one of the two
        return model, None
    path = resolve(spec.checkpoint)
    if model is not None and base is not None:
        load_into(model, base, str(spec.base), reading)
    if model is None:
        return load_whole(path, spec.checkpoint, reading)
    return load_into(model, path, spec.checkpoint, reading)


def _build(spec: ModelSpec, class_path: str, resolve: Callable[[str], Path]) -> nn.Module:
    """Call the factory with its arguments; random initial weights are the same every time."""
    factory = import_reference(class_path, resolve, _KEY)
    if not callable(factory):
        raise UsageError(f"{class_path} is {kind_of(factory)}, expected a function", _KEY)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the caller's GPUs too
        model = call_reference(_KEY, class_path, factory, resolve, **spec.init_args)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{class_path} built {kind_of(model)}, expected an nn.Module", _KEY)
    if lazy := next((name for name, item in model.named_parameters() if is_lazy(item)), None):
        raise UsageError(
            f"{class_path} built lazy layers (first: {lazy}), whose shapes show only with a first batch: give them "
            "their sizes, or let the function call the network on an example",
            _KEY,
        )
    return model
