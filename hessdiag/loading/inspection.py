"""What is in a checkpoint, found without running anything from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import RefusedError, UsageError
from hessdiag.files import read_json
from hessdiag.findings import Inspection, Refusal, TensorInfo
from hessdiag.loading.checkpoints import Format, Reading, identify, named, sha256
from hessdiag.loading.checkpoints.pickles import unsafe_globals
from hessdiag.loading.checkpoints.quantised import refuse_quantised
from hessdiag.loading.checkpoints.refused import LAST as NO_CHECKPOINT
from hessdiag.memory import out_of_memory

__all__ = ["inspect"]

_AT_ONCE = 1 << 22  # values looked at together: more gain nothing, and a mapped file is read piece by piece
_SCRIPTED = "__torch__."  # TorchScript's own classes, which are in the file and not called from outside
_CONFIG = {
    "model_type": "model type",
    "problem_type": "problem",
    "num_labels": "labels",
    "vocab_size": "vocabulary",
}
_ADAPTER = {
    "peft_type": "adapter",
    "base_model_name_or_path": "base model",
    "task_type": "task",
    "r": "rank",
}


def inspect(path: Path, shown: str, reading: Reading) -> Inspection:
    """Look into a checkpoint; one that would be refused is described all the same.

    Args:
        path: the file or folder.
        shown: how the user named it.
        reading: what the person at the keyboard allows, and which weights.

    Raises:
        UsageError: no such file or folder.
        CheckpointError: damaged, or of no known format.
    """
    if not (path.is_file() or path.is_dir()):
        fault = "found neither a file nor a folder" if path.exists() else "no such file or folder"
        raise UsageError(f"{shown}: {fault} (looked in {path.absolute().parent})")
    with named(shown):
        form = identify(path)
        try:
            contents = form.read(path, reading)
        except RefusedError as error:
            if form in NO_CHECKPOINT:
                raise
            return replace(_blank(path, shown, form), refusal=_refusal(error, form.files(path)))
        return replace(
            _blank(path, shown, form),
            format=contents.format or form.name,
            tensors=tuple(_described(contents.tensors)),
            besides=dict(contents.besides),
            refusal=_refused_as_read(contents.tensors),
        )


def _refusal(error: RefusedError, files: list[Path]) -> Refusal:
    names = dict.fromkeys(name for file in files for name in _unsafe_globals(file) if not name.startswith(_SCRIPTED))
    return Refusal(str(error), tuple(names))


def _refused_as_read(tensors: Mapping[str, Tensor]) -> Refusal | None:
    try:
        refuse_quantised(tensors)
    except RefusedError as error:
        return Refusal(str(error))
    return None


def _blank(path: Path, shown: str, form: Format) -> Inspection:
    """What is known from outside."""
    files = form.files(path)
    size = sum(file.stat().st_size for file in files)
    return Inspection(shown, form.name, len(files), size, sha256(files), _architecture(path))


def _architecture(folder: Path) -> dict[str, str]:
    """What the JSON files of a folder say of the network."""
    config, adapter = read_json(folder / "config.json") or {}, read_json(folder / "adapter_config.json") or {}
    found = {}
    names = config.get("architectures")
    if isinstance(names, list) and names:
        found["architecture"] = ", ".join(map(str, names))
    if config.get("auto_map"):
        found["own code"] = "named in auto_map, which is never run"
    found |= _words(config, _CONFIG) | _words(adapter, _ADAPTER)
    return found


def _words(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    found = {word: content.get(key) for key, word in names.items()}
    return {word: str(value) for word, value in found.items() if isinstance(value, (str, int)) and value != ""}


def _unsafe_globals(path: Path) -> list[str]:
    """What a pickle would call; nothing where there is no pickle, or it cannot be followed."""
    try:
        return unsafe_globals(path)
    except Exception as error:  # the refusal stands, whatever else is wrong with the file
        if out_of_memory(error):
            raise
        return []


def _described(tensors: Mapping[str, Tensor]) -> Iterator[TensorInfo]:
    """One tensor at a time, so that a mapped file passes through memory once."""
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        nan, inf = _not_finite(tensor)
        memory = _memory(tensor)
        same_as = seen.setdefault(memory, name) if memory is not None else name
        yield TensorInfo(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.numel(),
            tensor.numel() * tensor.element_size(),
            nan,
            inf,
            None if same_as == name else same_as,
        )


def _memory(tensor: Tensor) -> tuple[Any, ...] | None:
    """What two tensors have in common that are one; None where it has no memory to point to."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.numel() == 0:
        return None
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _not_finite(tensor: Tensor) -> tuple[int | None, int | None]:
    """How many values are NaN, and how many infinite; None where they cannot be looked at."""
    if tensor.is_meta:
        return None, None
    if tensor.is_quantized or not (tensor.is_floating_point() or tensor.is_complex()):
        return 0, 0
    try:
        return _counted(tensor.detach())
    except Exception as error:  # a kind of tensor that torch cannot look into
        if out_of_memory(error):
            raise
        return None, None


def _counted(tensor: Tensor) -> tuple[int | None, int | None]:
    values = tensor.values() if tensor.layout != torch.strided else tensor
    # An expanded tensor repeats what is stored once: a file of some bytes can claim any number of values.
    stored = values
    for axis, stride in enumerate(values.stride()):
        if stride == 0 and values.shape[axis] > 1:
            stored = stored.narrow(axis, 0, 1)
    if stored.numel() * stored.element_size() > stored.untyped_storage().nbytes():
        return None, None
    repeats = values.numel() // stored.numel() if stored.numel() else 0
    nan = inf = 0
    for chunk in _chunks(stored):
        part = chunk if chunk.dtype in (torch.float32, torch.float64) or chunk.is_complex() else chunk.float()
        if not bool(torch.isfinite(part).all()):
            missing = int(torch.isnan(part).sum())
            nan += missing
            inf += int((~torch.isfinite(part)).sum()) - missing
    return nan * repeats, inf * repeats


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Pieces of bounded size without a copy of the whole, also of one that is not contiguous."""
    if tensor.numel() <= _AT_ONCE:
        yield tensor
    elif tensor.is_contiguous():
        yield from torch.split(tensor.view(-1), _AT_ONCE)
    else:
        for row in tensor.unbind(0):
            yield from _chunks(row)
