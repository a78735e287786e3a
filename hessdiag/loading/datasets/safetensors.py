"""Tensors of a safetensors file, mapped into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from hessdiag.loading.datasets.arrays import ArrayExamples, named_examples
from hessdiag.loading.datasets.damage import COPY_AGAIN, damage_told
from hessdiag.spec.data import SafetensorsData

__all__ = ["read"]


def read(spec: SafetensorsData, resolve: Callable[[str], Path]) -> ArrayExamples:
    """The tensors that the spec names, as examples.

    Raises:
        DataError: damaged (the header is held against the file's size), or tensors of several lengths.
        UsageError: a tensor that the spec names is not there.
    """
    path = resolve(spec.path)
    with (
        damage_told(
            f"data.path: {spec.path} is not a readable safetensors file of {path.stat().st_size} bytes",
            f"{COPY_AGAIN}, or save it by safetensors.torch.save_file",
        ),
        safe_open(path, framework="pt") as file,
    ):

        def mapped(name: str) -> Tensor:
            tensor: Tensor = file.get_tensor(name)
            return tensor

        return named_examples(spec, sorted(file.keys()), mapped)
