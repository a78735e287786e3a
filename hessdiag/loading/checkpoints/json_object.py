"""JSON files of a checkpoint's folder: one object each, of a size that fits their purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hessdiag.errors import CheckpointError

__all__ = ["read_object"]

_MOST_BYTES = 2**26  # the index of a model of a hundred thousand tensors takes a seventh of it


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it is no JSON object, or too large for one that describes a model.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise CheckpointError(f"{path.name} has {size} bytes, expected at most {_MOST_BYTES}: copy it again")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is no JSON ({error}): it was cut short or overwritten, copy or save it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, expected a JSON object: copy it again")
    return content
