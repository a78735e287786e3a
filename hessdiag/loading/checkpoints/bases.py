"""What an adapter says of its base model: where it lies, and which head it had when the adapter was trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hessdiag.errors import CheckpointError, UsageError
from hessdiag.loading.checkpoints import huggingface
from hessdiag.loading.checkpoints.contents import Reading
from hessdiag.loading.checkpoints.heads import Head
from hessdiag.loading.checkpoints.words import printable
from hessdiag.loading.extras import import_extra

__all__ = ["CONFIG", "find_base", "head_of"]

CONFIG = "adapter_config.json"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_TASKS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
_HEADS = ("classifier", "score")  # whose rows are the labels


def find_base(path: Path, content: Mapping[str, Any], reading: Reading) -> Path:
    """The folder of the base model: as the spec says, or as the adapter does, here or in the hub's local cache.

    Args:
        path: the adapter's folder.
        content: of its config.
        reading: may name the base model's folder.

    Raises:
        UsageError: what it names is no folder of a model.
        CheckpointError: the base model is not on this machine.
    """
    if reading.base is not None:
        if not (reading.base / huggingface.CONFIG).is_file():
            raise UsageError(
                f"{reading.base}: expected the folder of a Hugging Face model (with {huggingface.CONFIG}); of a base "
                "model of another kind, name what builds it in model.class_path",
                "model.base",
            )
        return reading.base
    name = content.get("base_model_name_or_path")
    if not isinstance(name, str) or not name or "\0" in name:
        raise CheckpointError(f"{CONFIG} names no base model: set model.base to its folder, or model.class_path")
    for start in (path, Path()):  # an adapter that is moved with its base finds it from any folder
        if (start / name / huggingface.CONFIG).is_file():
            return start / name
    cached = _cached(name, content.get("revision"))
    if cached is None:
        download = f", or run hf download {name}" if _HUB_NAME.fullmatch(name) else ""
        raise CheckpointError(
            f"its base model {printable(name)!r} is neither the folder of a model nor in the hub's local cache, and "
            f"nothing is downloaded: set model.base to its folder{download}"
        )
    return cached


def _cached(name: str, revision: object) -> Path | None:
    """The hub's snapshot of a model, if it has been downloaded."""
    hub = import_extra("huggingface_hub", "a PEFT adapter")
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # not there, or no name of the hub
        return None
    return folder if (folder / huggingface.CONFIG).is_file() else None


def head_of(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Head:
    """Which form of the base model the adapter was trained on: it is not always the one that its folder names."""
    mapping = content.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    trained = content.get("modules_to_save")
    modules = tuple(str(name) for name in trained) if isinstance(trained, list) else ()
    architecture = _TASKS.get(str(content.get("task_type")), named if isinstance(named, str) else None)
    return Head(architecture, _labels(modules, tensors), modules)


def _labels(modules: tuple[str, ...], tensors: Mapping[str, Tensor]) -> int | None:
    """The rows of the head that the adapter brings: its config does not say how many labels there are."""
    for name, item in tensors.items():
        parts = name.split(".")
        if parts[-1] == "weight" and item.ndim == 2 and any(part in _HEADS for part in parts):
            head = next(part for part in parts if part in _HEADS)
            if head in modules and parts[-2] in (head, "out_proj"):
                return item.shape[0]
    return None
