"""State dicts saved by ``torch.save``, read with ``weights_only``: a pickle that would run code is refused."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hessdiag.errors import CheckpointError

__all__ = ["read", "recognises"]

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2: torch's format before 1.6


def recognises(head: bytes) -> bool:
    """A zip archive, or a bare pickle."""
    return head.startswith((_ZIP, _PICKLE))


def read(path: Path) -> Mapping[str, Tensor]:
    """The tensors by name, memory-mapped where the file allows.

    Raises:
        CheckpointError: damaged, refused, or no state dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(str(error))) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"damaged torch file of {path.stat().st_size} bytes ({first_line}): it was cut short or overwritten, "
            "copy or save it again"
        ) from error
    return _tensors(content)


def _refusal(message: str) -> str:
    """Name what weights_only would not load."""
    found = re.search(r"(?:GLOBAL|global) ([\w.]+)", message)
    if found is None:
        first_line = message.strip().splitlines()[0]
        return f"refused or damaged: it is not a plain pickle of tensors ({first_line}): save it again"
    return (
        f"refused: the pickle calls {found.group(1)}, and nothing in a checkpoint is run. "
        "Save the weights alone: torch.save(model.state_dict(), ...) or safetensors"
    )


def _tensors(content: object) -> Mapping[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"found a {type(content).__name__}, expected a state dict: names to tensors")
    others = [str(name) for name, item in content.items() if not isinstance(item, Tensor)]
    if others:
        raise CheckpointError(
            f"found {len(content)} keys of which {len(others)} are no tensors (first: {', '.join(others[:4])}), "
            "expected a state dict: save the inner state dict alone"
        )
    return {str(name): item for name, item in content.items()}
