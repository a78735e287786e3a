"""The folder of Accelerate's ``save_state``: the model's weights among what else a training run goes on from."""

from __future__ import annotations

import re
from pathlib import Path

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.weights import find_weights, other_files, read_weights, weight_files

__all__ = ["FORMAT"]

_STATE = re.compile(r"(random_states|custom_checkpoint)_\d+\.pkl|(optimizer|scheduler)(_\d+)?\.bin")
_SECOND_MODEL = re.compile(r"(model|pytorch_model)_\d+\.(safetensors|bin)(\.index\.json)?")


def _recognises(glimpse: Glimpse) -> bool:
    """Random states or an optimizer's, and no architecture: the trainer of transformers leaves one beside them."""
    names = glimpse.names
    return glimpse.is_folder and "config.json" not in names and any(map(_STATE.fullmatch, names))


def _weights(folder: Path) -> Path:
    """The weights' file or index.

    Raises:
        CheckpointError: it holds none, or those of several models.
    """
    path = find_weights(folder)
    others = sorted(entry.name for entry in folder.iterdir() if _SECOND_MODEL.fullmatch(entry.name))
    if others:
        raise CheckpointError(
            f"it holds {1 + len(others)} models ({', '.join([path.name, *others][:5])}), expected one: name its file "
            f"in place of the folder"
        )
    return path


def _read(path: Path, reading: Reading) -> Contents:
    """The model's tensors; of the other files no byte is read."""
    weights = _weights(path)
    return Contents(read_weights(weights, reading), other_files(path, [weights, *weight_files(weights)]))


FORMAT = Format("accelerate", _recognises, _read, files=lambda path: weight_files(_weights(path)))
