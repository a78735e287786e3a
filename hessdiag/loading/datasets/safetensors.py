"""Tensors of a safetensors file, mapped into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from hessdiag.errors import DataError, HessdiagError
from hessdiag.loading.datasets.arrays import ArrayExamples, named_examples
from hessdiag.memory import out_of_memory
from hessdiag.spec.data import SafetensorsData

__all__ = ["read"]


def read(spec: SafetensorsData, resolve: Callable[[str], Path]) -> ArrayExamples:
    """The tensors that the spec names, as examples.

    Raises:
        DataError: damaged (the header is held against the file's size), or tensors of several lengths.
        UsageError: a tensor that the spec names is not there.
    """
    path = resolve(spec.path)
    try:
        with safe_open(path, framework="pt") as file:

            def mapped(name: str) -> Tensor:
                tensor: Tensor = file.get_tensor(name)
                return tensor

            return named_examples(spec, sorted(file.keys()), mapped)
    except HessdiagError:
        raise
    except Exception as error:  # SafetensorError, and what torch raises on types that it lacks
        if out_of_memory(error):
            raise
        if "Cannot allocate memory" in str(error):  # torch maps it so that it may be written to, as memory may
            raise DataError(
                f"data.path: {spec.path} has more bytes than this machine has memory: save its tensors as .npy files, "
                "whose folder can be read piecewise (data.format: npz)"
            ) from None
        raise DataError(
            f"data.path: {spec.path} is not a readable safetensors file of {path.stat().st_size} bytes ({error}): it "
            "was cut short, overwritten, or is of another format: copy it again, or save it by "
            "safetensors.torch.save_file"
        ) from None
