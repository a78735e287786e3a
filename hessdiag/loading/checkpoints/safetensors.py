"""safetensors: tensors and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hessdiag.errors import CheckpointError

__all__ = ["read", "recognises"]


def recognises(head: bytes) -> bool:
    """Eight bytes of length, then a JSON object."""
    return len(head) > 8 and head[8:9] == b"{"


def read(path: Path) -> Mapping[str, Tensor]:
    """The tensors by name, memory-mapped.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        tensors: Mapping[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"damaged safetensors file of {path.stat().st_size} bytes ({error}): it was cut short or overwritten, "
            "copy or save it again"
        ) from error
    return tensors
