"""safetensors: tensors and nothing else."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading

__all__ = ["FORMAT"]


def _recognises(glimpse: Glimpse) -> bool:
    """Eight bytes of length, then a JSON object."""
    return glimpse.head[8:9] == b"{"


def _read(path: Path, reading: Reading) -> Contents:
    """The tensors by name, memory-mapped.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return Contents(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"damaged safetensors file of {path.stat().st_size} bytes ({error}): it was cut short or overwritten, "
            "copy or save it again"
        ) from error


FORMAT = Format("safetensors", _recognises, _read)
