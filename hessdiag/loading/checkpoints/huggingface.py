"""Hugging Face model folders: ``config.json`` names the architecture, which transformers builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.heads import Head
from hessdiag.loading.checkpoints.json_object import read_object
from hessdiag.loading.checkpoints.quantised import refuse_quantisation
from hessdiag.loading.checkpoints.transformer import build_transformer
from hessdiag.loading.checkpoints.weights import find_weights, other_files, read_weights, weight_files

__all__ = ["FORMAT", "build_from", "files_of"]

CONFIG = "config.json"


def build_from(folder: Path, reading: Reading, head: Head | None = None) -> nn.Module:
    """The network that the folder describes, with its weights.

    Args:
        folder: holds ``config.json`` and the weights.
        reading: what is allowed.
        head: another one than the folder's, which an adapter brings.

    Raises:
        CheckpointError: damaged, refused, or the weights are not those of the architecture.
        MissingExtraError: transformers is not installed.
    """
    config = read_object(folder / CONFIG)
    return build_transformer(folder, config, lambda: read_weights(find_weights(folder), reading), head)


def files_of(folder: Path) -> list[Path]:
    """Those that hold the weights."""
    return weight_files(find_weights(folder))


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.is_folder and CONFIG in glimpse.names


def _read(path: Path, reading: Reading) -> Contents:
    """The tensors by name, for a network that the spec has built.

    Raises:
        CheckpointError: damaged, refused, or quantised.
    """
    weights = find_weights(path)
    files = weight_files(weights)
    config = read_object(path / CONFIG)
    refuse_quantisation(config)
    besides = {CONFIG: _described(config), **other_files(path, [path / CONFIG, weights, *files])}
    return Contents(read_weights(weights, reading), besides)


def _described(config: Mapping[str, object]) -> str:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return f"architecture {names[0]}"
    return "names no architecture"


FORMAT = Format(
    "huggingface",
    _recognises,
    _read,
    files=files_of,
    build=build_from,
    builds_from=lambda path, reading: [path / CONFIG],
)
