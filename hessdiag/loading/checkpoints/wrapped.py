"""Weights inside the dicts in which training scripts wrap them, among optimizers, epochs and moving averages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.contents import Contents
from hessdiag.loading.checkpoints.words import counted, few, in_few_words, printable

__all__ = ["EMA", "LIGHTNING_WEIGHTS", "is_lightning", "unwrap"]

_NAMES = (
    *("state_dict", "model", "model_state_dict", "model_state", "module", "net", "net_state_dict", "network"),
    *("network_state_dict", "weights", "params", "app"),
)
EMA = re.compile(r"(?:^|[_.\-])(?:ema|swa|averaged?|shadow)(?:$|[_.\-])", re.IGNORECASE)
"""A name, or one part of a tensor's name, that stands for a moving average of the weights."""
_OTHERS = re.compile(r"optim|sched|scaler|callback|loop|hyper_param|rng|random|config|args|^state$", re.IGNORECASE)
_DEEPEST = 4
_MOST_TOLD = 40
_LIGHTNING = "pytorch-lightning_version"
LIGHTNING_WEIGHTS = ("state_dict", "current_model_state")
"""Where Lightning keeps weights; its WeightAveraging uses both."""

Which = Literal["model", "ema"]


@dataclass(frozen=True)
class _Found:
    """Weights, and the keys that lead to them."""

    path: tuple[str, ...]
    weights: Mapping[str, Any] | nn.Module

    @property
    def name(self) -> str:
        return ".".join(printable(key) for key in self.path)

    def tensors(self) -> dict[str, Tensor]:
        held = self.weights.state_dict() if isinstance(self.weights, nn.Module) else self.weights
        return {str(name): item for name, item in held.items() if isinstance(item, Tensor)}

    def others(self) -> dict[str, Any]:
        """What stands among the tensors and is none."""
        if isinstance(self.weights, nn.Module):
            return {}
        return {str(name): item for name, item in self.weights.items() if not isinstance(item, Tensor)}


def is_lightning(keys: Any) -> bool:
    """Whether the top-level keys are those that Lightning writes."""
    return _LIGHTNING in keys and "state_dict" in keys


def unwrap(content: object, which: Which) -> Contents:
    """The weights in what a checkpoint holds, and in few words what is there besides.

    Args:
        content: what ``torch.load`` gave.
        which: the weights that were trained, or their moving average.

    Raises:
        CheckpointError: it holds none, not those that are asked for, or several of which none stands out.
    """
    if isinstance(content, nn.Module):
        content = {"": content}
    if not isinstance(content, Mapping):
        raise CheckpointError(f"found a {type(content).__name__}, expected a state dict: names to tensors")
    found = _one(_averages(content) if which == "ema" else _trained(content), content, which)
    tensors, besides = found.tensors(), found.others() | _beside(content, found.path)
    if lazy := [name for name, item in tensors.items() if is_lazy(item)]:
        raise CheckpointError(
            f"holds {counted(len(lazy))} without a shape (first: {printable(lazy[0])}), of lazy layers that no batch "
            "has gone through: save it after the first"
        )
    if which == "ema" and not _is_average(found.path, content):
        tensors = _among(tensors)
    if "n_averaged" in tensors:  # of torch's AveragedModel, whose weights stand under "module."
        besides["n_averaged"] = tensors.pop("n_averaged").flatten()[:1].tolist()[0]
    return Contents(
        tensors,
        {printable(name): in_few_words(item) for name, item in list(besides.items())[:_MOST_TOLD]},
        found.weights if isinstance(found.weights, nn.Module) else None,
        _format(content, found),
    )


def _format(content: Mapping[Any, Any], found: _Found) -> str | None:
    if isinstance(found.weights, nn.Module):
        return "pickled-module"
    return "lightning" if is_lightning(content) else None


def _one(found: list[_Found], content: Mapping[Any, Any], which: Which) -> _Found:
    """The only candidate; the same object under two names is one."""
    distinct = list({id(each.weights): each for each in found}.values())
    if len(distinct) == 1:
        return distinct[0]
    if distinct:
        told = ", ".join(f"{each.name} ({counted(len(each.tensors()))})" for each in distinct[:5])
        raise CheckpointError(
            f"holds {len(distinct)} sets of weights of which none stands out: {told}. Save the one that you mean "
            "alone: torch.save(model.state_dict(), ...) or safetensors"
        )
    raise CheckpointError(_nothing(content, which))


def _nothing(content: Mapping[Any, Any], which: Which) -> str:
    if not content:
        return "found an empty dict, expected a state dict: names to tensors"
    held = f"it holds {few(content, 6)}"
    if which == "ema":
        return f"holds no weights of a moving average ({held}): leave out --weights ema (model.weights: ema)"
    if _averages(content):
        return f"holds no weights but those of a moving average ({held}): --weights ema (model.weights: ema)"
    if any(_is_optimizer(item) for item in (content, *content.values())):
        return f"holds the state of an optimizer and no weights ({held}): name the checkpoint that has the weights"
    return f"holds no tensors by name ({held}), expected a state dict, or a dict that has one as state_dict or model"


def _trained(content: Any, path: tuple[str, ...] = (), seen: set[int] | None = None) -> list[_Found]:
    """Weights under the usual names; else those here, or under any name that is not of something else."""
    seen = set() if seen is None else seen
    if id(content) in seen or len(path) > _DEEPEST:  # a small pickle can make a dict that leads to itself many times
        return []
    seen.add(id(content))
    if isinstance(content, nn.Module):
        return [_Found(path, content)]
    if not isinstance(content, Mapping) or _is_optimizer(content):
        return []
    names = ("current_model_state",) if _averages_in_place(content) else _NAMES
    usual = [found for name in names if name in content for found in _trained(content[name], (*path, name), seen)]
    if usual:
        return usual
    inner = [
        found
        for name, item in content.items()
        if isinstance(name, str) and not _OTHERS.search(name) and not EMA.search(name)
        for found in _trained(item, (*path, name), seen)
    ]
    own = _tensors_in(content)
    # A single tensor beside weights is a state of the random numbers or their like.
    return [_Found(path, content)] if own and own >= sum(len(found.tensors()) for found in inner) else inner


def _averages(content: Any) -> list[_Found]:
    """Weights under a name of a moving average; else those among which, or as which, one stands."""
    named = [found for path, item in _average_entries(content, (), set()) for found in _trained(item, path)]
    return named or [found for found in _trained(content) if _holds_average(found.tensors())]


def _average_entries(content: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if id(content) in seen or not isinstance(content, Mapping) or _is_optimizer(content) or len(path) >= _DEEPEST:
        return
    seen.add(id(content))
    if _averages_in_place(content):
        yield (*path, "state_dict"), content["state_dict"]
        return
    for name, item in content.items():
        if isinstance(name, str) and isinstance(item, (Mapping, nn.Module)):
            if EMA.search(name) and _trained(item):
                yield (*path, name), item
            else:
                yield from _average_entries(item, (*path, name), seen)


def _averages_in_place(content: Mapping[Any, Any]) -> bool:
    """Lightning's WeightAveraging puts the average under ``state_dict``, and the weights under another name."""
    return "current_model_state" in content and "averaging_state" in content


def _is_average(path: tuple[str, ...], content: Mapping[Any, Any]) -> bool:
    return any(EMA.search(name) for name in path) or (path[-1:] == ("state_dict",) and _averages_in_place(content))


def _average_parts(tensors: Mapping[str, Tensor]) -> list[str]:
    """First components of names that stand for a moving average, as ``ema_model`` in ``ema_model.0.weight``."""
    return sorted({name.partition(".")[0] for name in tensors if EMA.search(name.partition(".")[0])})


def _holds_average(tensors: Mapping[str, Tensor]) -> bool:
    return "n_averaged" in tensors or bool(_average_parts(tensors))


def _among(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The moving average among other weights; an AveragedModel is one as a whole."""
    parts = _average_parts(tensors)
    if "n_averaged" in tensors or not parts:
        return tensors
    if len(parts) > 1:
        raise CheckpointError(f"holds several moving averages ({few(parts)}): save the one that you mean alone")
    prefix = f"{parts[0]}."
    return {name.removeprefix(prefix): item for name, item in tensors.items() if name.startswith(prefix)}


def _is_optimizer(item: Any) -> bool:
    return isinstance(item, Mapping) and "param_groups" in item


def _tensors_in(content: Mapping[Any, Any]) -> int:
    """How many stand here by name."""
    if not all(isinstance(name, str) for name in content):
        return 0
    return sum(isinstance(item, Tensor) for item in content.values())


def _beside(content: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """What stands beside the keys that lead to the weights, on every level."""
    besides: dict[str, Any] = {}
    prefix = ""
    for key in path:
        if not isinstance(content, Mapping):
            break
        besides |= {f"{prefix}{printable(name)}": item for name, item in content.items() if name != key}
        prefix, content = f"{prefix}{printable(key)}.", content[key]
    return besides
