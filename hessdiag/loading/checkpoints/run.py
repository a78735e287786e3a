"""The folder that ``hessdiag nso train`` wrote: its last weights."""

from __future__ import annotations

from pathlib import Path

from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.weights import other_files, read_file

__all__ = ["FORMAT", "LAST"]

LAST = "last.safetensors"


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.is_folder and {LAST, "spec.yaml"} <= glimpse.names


def _read(path: Path, reading: Reading) -> Contents:
    last = path / LAST
    return Contents(read_file(last, reading).tensors, other_files(path, [last]), format="safetensors")


FORMAT = Format("run", _recognises, _read, files=lambda path: [path / LAST])
