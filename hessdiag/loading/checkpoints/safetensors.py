"""safetensors: tensors and nothing else."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.words import printable
from hessdiag.memory import out_of_memory

__all__ = ["FORMAT"]

_LENGTH_BYTES = 8


def _recognises(glimpse: Glimpse) -> bool:
    """Eight bytes of length, of which text has no zero, then a JSON object."""
    return glimpse.head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and 0 in glimpse.head[:_LENGTH_BYTES]


def _read(path: Path, reading: Reading) -> Contents:
    """The tensors by name, memory-mapped.

    Raises:
        CheckpointError: the file is damaged, or a moving average is asked for, which the format does not tell apart.
    """
    if reading.weights == "ema":
        raise CheckpointError(
            "safetensors hold one set of weights: leave out --weights ema (model.weights: ema), or name the file that "
            "holds the moving average"
        )
    _check_length(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Contents(load_file(path), besides={"metadata": ", ".join(sorted(metadata)[:5])} if metadata else {})
    except Exception as error:  # a damaged header can make the library stumble over anything
        if out_of_memory(error):
            raise
        raise CheckpointError(
            f"damaged safetensors file of {path.stat().st_size} bytes ({printable(str(error))}): "
            "it was cut short or overwritten, copy or save it again"
        ) from error


def _check_length(path: Path) -> None:
    """Compare the header's length with the file's before anything is allocated for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > size - _LENGTH_BYTES:
        raise CheckpointError(
            f"damaged safetensors file of {size} bytes: it claims a header of {length} bytes: it was cut short or "
            "overwritten, copy or save it again"
        )


FORMAT = Format("safetensors", _recognises, _read)
