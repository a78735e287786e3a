"""PEFT adapter folders: their own weights on a base model that lies elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import CheckpointError, RefusedError
from hessdiag.loading.checkpoints import huggingface, run
from hessdiag.loading.checkpoints.bases import CONFIG, find_base, head_of
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.json_object import read_object
from hessdiag.loading.checkpoints.libraries import one_line, secluded
from hessdiag.loading.checkpoints.weights import NAMES, find_weights, other_files, read_weights, weight_files
from hessdiag.loading.checkpoints.words import printable
from hessdiag.loading.extras import import_extra
from hessdiag.memory import out_of_memory

__all__ = ["FORMAT"]

_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
_ELSEWHERE = ("adapters", "shadow_model")  # of X-LoRA and its like: from where peft would load more weights


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.is_folder and CONFIG in glimpse.names


def _read(path: Path, reading: Reading) -> Contents:
    """The adapter's own tensors."""
    weights = find_weights(path, _NAMES)
    config = read_object(path / CONFIG)
    base = config.get("base_model_name_or_path") or "a model that it does not name"
    besides = {CONFIG: f"{config.get('peft_type')} on {base}", **other_files(path, [path / CONFIG, weights])}
    return Contents(read_weights(weights, reading), besides)


def _build(path: Path, reading: Reading) -> nn.Module:
    """The base model with the adapter on it; the weights that are measured require grad, the others do not.

    Raises:
        CheckpointError: damaged, refused, its base model is not here, or not the one that it was trained on.
        MissingExtraError: peft or transformers is not installed.
    """
    content = read_object(path / CONFIG)
    peft = import_extra("peft", "a PEFT adapter")
    tensors = read_weights(find_weights(path, _NAMES), reading)
    config = _config(peft, path, content, tensors)
    base = reading.model
    if base is None:
        base = huggingface.build_from(find_base(path, content, reading), reading, head_of(content, tensors))
    with secluded(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            model = peft.get_peft_model(base, config)
            loaded = peft.set_peft_model_state_dict(model, tensors)
            _check_fit(model, loaded, tensors)
            if reading.adapter == "merged":
                model = _merged(model, config)
        except CheckpointError:
            raise
        except Exception as error:  # whatever an adapter of another base makes it stumble over
            raise _misfit(error) from error
    return model.eval()  # type: ignore[no-any-return]


def _config(peft: Any, path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """PEFT's own reading of the config, after what would run code or take all memory is refused."""
    if content.get("megatron_config"):
        raise RefusedError(
            f"refused: {CONFIG} names a module to import (megatron_core), and nothing in a checkpoint is run: "
            "save the adapter without megatron_config"
        )
    elsewhere = [key for key in _ELSEWHERE if content.get(key)]
    if elsewhere:
        raise RefusedError(
            f"refused: {CONFIG} names other checkpoints ({elsewhere[0]}), whose weights are not in this folder: merge "
            "them into the base model with peft, and save that"
        )
    largest = max((max(item.shape, default=1) for item in tensors.values()), default=1)
    for key, value in _ranks(content):
        if isinstance(value, (int, float)) and value > largest:
            raise CheckpointError(
                f"{CONFIG} says {printable(key)}: {value}, but no dimension of the adapter's tensors is larger than "
                f"{largest}: they are not of one adapter, copy both again"
            )
    try:
        with secluded():
            config = peft.PeftConfig.from_pretrained(str(path))
    except Exception as error:  # whatever a damaged config makes it stumble over
        if out_of_memory(error):
            raise
        raise CheckpointError(
            f"peft cannot read {CONFIG} ({one_line(error)}): it is damaged, or of a newer peft: copy it again, or "
            "update peft"
        ) from error
    config.inference_mode = False  # else its weights are frozen
    if hasattr(config, "prompt_tuning_init"):
        config.prompt_tuning_init = "RANDOM"  # else a tokenizer that the config names is loaded: its code could run
    return config


def _ranks(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    patterns = content.get("rank_pattern")
    ranks = [("r", content.get("r")), ("num_virtual_tokens", content.get("num_virtual_tokens"))]
    return [*ranks, *(patterns.items() if isinstance(patterns, dict) else ())]


def _check_fit(model: Any, loaded: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse an adapter of which a tensor is missing or has no place: PEFT would leave it as initialised."""
    missing = set(loaded.missing_keys)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad and not name.startswith("prompt_encoder."):  # loaded apart, and told by PEFT
            names.setdefault(id(parameter), []).append(name)
    lacking = [each[0] for each in names.values() if missing.issuperset(each)]
    unexpected = sorted(key for key in loaded.unexpected_keys if not _loaded_apart(key, tensors))
    complaints = []
    if lacking:
        complaints.append(f"it lacks {len(lacking)} of the adapter's {len(names)} tensors (first: {lacking[0]})")
    if unexpected:
        complaints.append(
            f"it has {len(unexpected)} of {len(tensors)} tensors that the base model has no place for "
            f"(first: {printable(unexpected[0])})"
        )
    if complaints:
        raise CheckpointError(
            f"the adapter does not fit its base model: {'; '.join(complaints)}; set model.base to the model that it "
            f"was trained on, and check that {CONFIG} and the weights are of one save"
        )


def _loaded_apart(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether PEFT puts it into its prompt encoder, or saved it twice, as the bias of a module that it saved whole."""
    twice = ".modules_to_save." in name or ".original_module." in name
    plain = name.replace(".modules_to_save.", ".").replace(".original_module.", ".")
    return name.startswith("prompt_") or (twice and plain in tensors)


def _merged(model: Any, config: Any) -> nn.Module:
    """The base model with the adapter merged into its weights, all of which require grad."""
    if config.is_prompt_learning or not hasattr(model, "merge_and_unload"):
        raise CheckpointError(
            f"an adapter of the type {config.peft_type.value} cannot be merged into the weights: "
            "set model.adapter: only"
        )
    _refuse_tied(model)
    merged: nn.Module = model.merge_and_unload()
    return merged.requires_grad_(True)


def _refuse_tied(model: Any) -> None:
    """Refuse to merge into a weight that has another place, in which the adapter does not change it."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    wrapped = [module.base_layer for module in model.modules() if hasattr(module, "base_layer")]
    for parameter in (parameter for layer in wrapped for parameter in layer.parameters()):
        names = places[id(parameter)]
        if len(names) > 1 and not all(".token_adapter." in name for name in names):  # that one knows of ties
            raise CheckpointError(
                f"the adapter cannot be merged: it changes the weight {names[0]}, which is tied to {names[1]}, where "
                "the change does not belong: set model.adapter: only"
            )


def _misfit(error: Exception) -> Exception:
    if out_of_memory(error):
        return error
    what = f"it lacks {printable(error.args[0])}" if isinstance(error, KeyError) and error.args else one_line(error)
    return CheckpointError(
        f"the adapter does not fit its base model ({what}): set model.base to the model that it was trained on, and "
        f"check that {CONFIG} and the weights are of one save"
    )


def _builds_from(path: Path, reading: Reading) -> list[Path]:
    """Its config, and the base model's files."""
    if reading.model is None:
        base = find_base(path, read_object(path / CONFIG), reading)
        return [path / CONFIG, base / huggingface.CONFIG, *huggingface.files_of(base)]
    if reading.base is None:
        return [path / CONFIG]
    return [path / CONFIG, *weight_files(find_weights(reading.base, (*NAMES, run.LAST)))]


FORMAT = Format(
    "peft",
    _recognises,
    _read,
    files=lambda path: [find_weights(path, _NAMES)],
    build=_build,
    builds_from=_builds_from,
    on_a_model=True,
)
