"""Weights from a file: the format is found from the content, and nothing in the file runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints import safetensors, state_dict
from hessdiag.loading.checkpoints.fit import load_weights
from hessdiag.results import CheckpointInfo

__all__ = ["FORMATS", "load_checkpoint"]


@dataclass(frozen=True)
class Format:
    """A family of files: ``recognises`` looks at the first bytes, ``read`` gives tensors by name."""

    name: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Path], Mapping[str, Tensor]]


FORMATS = (
    Format("safetensors", safetensors.recognises, safetensors.read),
    Format("state_dict", state_dict.recognises, state_dict.read),
)


_LFS = b"version https://git-lfs"


def load_checkpoint(model: nn.Module, path: Path, shown: str) -> CheckpointInfo:
    """Read a checkpoint and put its weights into the model.

    Args:
        model: receives the weights.
        path: the file.
        shown: how the user named it, for messages and the report.

    Raises:
        CheckpointError: empty, damaged, of an unknown format, refused, or not fitting the model.
    """
    if path.is_dir():
        raise CheckpointError(f"{shown}: found a folder, expected a file (.safetensors, or a .pt state dict)")
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{shown}: could not be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{shown}: the file is empty (0 bytes), expected a checkpoint: copy or save it again")
    if head.startswith(_LFS):
        raise CheckpointError(f"{shown}: found a Git LFS pointer, expected the checkpoint itself: run git lfs pull")
    for form in FORMATS:
        if form.recognises(head):
            try:
                tensors = form.read(path)
            except CheckpointError as error:
                raise CheckpointError(f"{shown}: {error}") from error
            load_weights(model, tensors, shown)
            return CheckpointInfo(shown, form.name, digest)
    raise CheckpointError(
        f"{shown}: found neither safetensors nor a torch file (first bytes {head[:8]!r}), expected a state dict "
        "saved by safetensors or by torch.save: was it cut short, or is it another file?"
    )
