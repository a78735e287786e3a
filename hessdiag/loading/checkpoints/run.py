"""The folder that ``hessdiag nso train`` wrote: its last weights."""

from __future__ import annotations

from pathlib import Path

from hessdiag.loading.checkpoints import safetensors
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.weights import other_files

__all__ = ["FORMAT"]

_LAST = "last.safetensors"


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.is_folder and {_LAST, "spec.yaml"} <= glimpse.names


def _read(path: Path, reading: Reading) -> Contents:
    return Contents(
        safetensors.FORMAT.read(path / _LAST, reading).tensors, other_files(path, [path / _LAST]), format="safetensors"
    )


FORMAT = Format("run", _recognises, _read, files=lambda path: [path / _LAST])
