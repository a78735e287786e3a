"""A network of transformers from its config and its tensors; nothing is left at its random initialisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import CheckpointError, HessdiagError, RefusedError
from hessdiag.loading.checkpoints.heads import Head, check_fit
from hessdiag.loading.checkpoints.libraries import one_line, secluded
from hessdiag.loading.checkpoints.quantised import refuse_quantisation, refuse_quantised
from hessdiag.loading.checkpoints.words import printable
from hessdiag.loading.extras import explain_failure, explain_import, import_extra
from hessdiag.memory import available_memory, out_of_memory

__all__ = ["build_transformer"]

_PURPOSE = "a Hugging Face model"
_MOST_OF_A_KIND = 100_000  # layers, labels, experts: more make building the config alone take for ever
_LAYERS_PER_TENSOR = 10  # ALBERT shares one layer's tensors between all


def build_transformer(
    folder: Path, content: Mapping[str, Any], tensors: Callable[[], dict[str, Tensor]], head: Head | None = None
) -> nn.Module:
    """The network that a config describes, with its tensors, in evaluation mode.

    Half-precision weights become float32, in which their Hessian can be measured.

    Args:
        folder: holds ``config.json``.
        content: what that file says.
        tensors: reads the weights, by their names in the folder.
        head: another one than the config's.

    Raises:
        CheckpointError: an architecture that transformers lacks, quantised weights, weights of another architecture.
        MissingExtraError: transformers is not installed.
    """
    head = head or Head()
    _refuse(content)
    transformers = import_extra("transformers", _PURPOSE)
    with secluded(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        config = _config(transformers, folder, head)
        found = tensors()
        refuse_quantised(found)
        architecture = _architecture(transformers, content, config, head)
        _check_size(architecture, config, found)
        try:
            model, info = architecture.from_pretrained(
                None,
                config=config,
                state_dict=found,
                dtype=_dtype(found),
                attn_implementation="eager",
                ignore_mismatched_sizes=True,  # those that differ are told below, with their count
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # whatever a config that does not suit the weights makes it stumble over
            raise _stumbled(error, f"{architecture.__name__} could not be built from config.json") from error
    check_fit(model, info, content, head)
    return model.requires_grad_(True)  # type: ignore[no-any-return]


def _refuse(content: Mapping[str, Any]) -> None:
    """Refuse what needs code that comes with the checkpoint, and what is no floating-point network."""
    code = content.get("auto_map")
    if code and set(code) != {"AutoTokenizer"}:
        raise RefusedError(
            "refused: config.json asks for code that comes with the checkpoint (auto_map), and nothing in a checkpoint "
            "is run: name what builds the network in model.class_path, or, where the architecture of that name in "
            "transformers is the same one, take auto_map out of config.json"
        )
    refuse_quantisation(content)
    _refuse_huge(content)


def _refuse_huge(content: Mapping[str, Any]) -> None:
    """Refuse counts that would take for ever to build; a damaged digit is enough."""
    left = [content]
    while left:
        for key, value in left.pop().items():
            counts = key.startswith("num_") or key in ("n_layer", "n_layers", "n_head")
            if counts and isinstance(value, (int, float)) and value > _MOST_OF_A_KIND:
                raise CheckpointError(
                    f"config.json is damaged: found {printable(key)}: {value}, expected a count: copy it again"
                )
            if isinstance(value, dict):
                left.append(value)


def _config(transformers: Any, folder: Path, head: Head) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a damaged config makes it stumble over
        raise _stumbled(error, "transformers cannot read config.json") from error
    for each in [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))]:
        if hasattr(each, "use_cache"):
            each.use_cache = False  # keys and values are kept for generation alone
        if hasattr(each, "use_pretrained_backbone"):
            each.use_pretrained_backbone = False  # all weights come from the folder
    config.return_dict = True
    # The fused kinds have no second derivative; and the config may name a kernel that would be downloaded and run.
    config._attn_implementation = "eager"
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"
    if head.labels is not None:
        config.num_labels = head.labels
    return config


def _architecture(transformers: Any, content: Mapping[str, Any], config: Any, head: Head) -> Any:
    """The class that the config or the adapter names, if it is one of transformers' own."""
    if head.architecture is not None and head.architecture.startswith("Auto"):
        try:
            with torch.device("meta"):
                return type(getattr(transformers, head.architecture).from_config(config))
        except Exception as error:
            raise _stumbled(error, f"the base model has no form for the adapter's task, {head.architecture}") from error
    name = head.architecture or _named(content)
    try:
        found = getattr(transformers, name, None) if name.isidentifier() else None
        known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    except Exception as error:  # transformers imports its parts when they are asked for
        raise explain_import(error, "transformers", _PURPOSE) from error
    if not known:
        raise CheckpointError(
            f"config.json names the architecture {printable(name)!r}, which transformers {transformers.__version__} "
            "does not have: update transformers, or name what builds the network in model.class_path"
        )
    expected = getattr(found, "config_class", None)
    if expected is None or not isinstance(config, expected):
        raise CheckpointError(
            f"config.json is damaged: its architecture {name} does not go with its model_type "
            f"{getattr(config, 'model_type', None)!r}: copy it again, or name what builds the network in "
            "model.class_path"
        )
    return found


def _named(content: Mapping[str, Any]) -> str:
    names = content.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    if isinstance(content.get("architecture"), str):
        name = printable(content["architecture"])
        raise CheckpointError(
            f"config.json is timm's (architecture {name}), which does not build the network by itself: set "
            f"model.class_path: timm.create_model and model.init_args: {{model_name: {name}}}"
        )
    raise CheckpointError(
        "config.json names no architecture (architectures: [...]), so nothing says what builds the network: name it "
        'in model.class_path, "file.py:name" or "package.module.Name"'
    )


def _check_size(architecture: Any, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Build the network without memory first: a damaged config may describe one that fits no machine."""
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _LAYERS_PER_TENSOR * len(tensors):
        raise CheckpointError(
            f"config.json says that the network has {layers} layers, but the weights have {len(tensors)} tensors: "
            "they are not of one model, copy both again"
        )
    try:
        with torch.device("meta"):
            skeleton = architecture(config)
        needed = sum(item.numel() * 4 for item in skeleton.state_dict().values())
    except Exception as error:
        raise _stumbled(error, f"{architecture.__name__} could not be built from config.json") from error
    held = sum(item.numel() * 4 for item in tensors.values())
    if needed > 2 * held and needed > available_memory(torch.device("cpu")):
        raise CheckpointError(
            f"config.json describes a network of {needed:,} bytes, but the weights are of {held:,}: they are not of "
            "one model, copy both again"
        )


def _dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    double = any(item.dtype is torch.float64 for item in tensors.values())
    return torch.float64 if double else torch.float32


def _stumbled(error: Exception, what: str) -> HessdiagError:
    if out_of_memory(error):
        raise error
    return explain_failure(error, _PURPOSE) or CheckpointError(
        f"{what} ({one_line(error)}): it is damaged, or of a newer transformers: copy it again, "
        "or name what builds the network in model.class_path"
    )
