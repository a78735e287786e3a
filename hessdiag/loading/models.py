"""The model that a spec names, built by its factory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hessdiag.errors import UsageError
from hessdiag.loading.references import call_reference, import_reference
from hessdiag.spec.schema import ModelSpec

__all__ = ["build_model"]

_KEY = "model.class_path"


def build_model(spec: ModelSpec, resolve: Callable[[str], Path]) -> nn.Module:
    """Call the factory with its arguments; random initial weights are the same every time.

    Raises:
        UsageError: no such factory, or it does not build an ``nn.Module``.
        HessdiagError: the factory raised.
    """
    factory = import_reference(spec.class_path, resolve, _KEY)
    if not callable(factory):
        raise UsageError(f"{spec.class_path} is a {type(factory).__name__}, expected a function", _KEY)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the caller's GPUs too
        model = call_reference(_KEY, spec.class_path, factory, resolve, **spec.init_args)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{spec.class_path} built a {type(model).__name__}, expected an nn.Module", _KEY)
    return model
