"""Names as a model has them, from those that wrappers, compilers and Lightning put a prefix before."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.words import few, printable
from hessdiag.loading.checkpoints.wrapped import EMA

__all__ = ["align", "likely_prefix"]

_INNER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def align(
    tensors: Mapping[str, Tensor], required: Sequence[Sequence[str]]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under the model's names: prefixes are taken away where that gives every name, and only there.

    Args:
        tensors: as the checkpoint names them.
        required: what fills the model, each with the names of which one suffices.

    Returns:
        The tensors, and the names of those that stand outside the prefix and are left out: a Lightning module's
        class weights and metrics beside its network.

    Raises:
        CheckpointError: several prefixes give every name, or one does and a name stands without it too.
    """
    found = dict(tensors)
    if not required or _complete(found, "", required):
        return _without_average(found, "", required)
    bare = {_INNER.sub("", name): item for name, item in found.items()}
    for names in [found] + [bare] * (len(bare) == len(found)):
        prefixes = [prefix for prefix in _prefixes(names, required) if _complete(names, prefix, required)]
        trained = [prefix for prefix in prefixes if not _averaged(prefix)] or prefixes
        if len(trained) > 1:
            raise CheckpointError(
                f"its names match the model's under {len(trained)} prefixes ({few(trained)}), expected one: save the "
                "state dict of the one that you mean alone"
            )
        if trained:
            return _without_average(names, trained[0], required)
    return found, ()


def _complete(names: Collection[str], prefix: str, required: Sequence[Sequence[str]]) -> bool:
    return all(any(f"{prefix}{name}" in names for name in tied) for tied in required)


def _prefixes(names: Collection[str], required: Sequence[Sequence[str]]) -> list[str]:
    """What stands before the longest of the model's names, or one tied to it: the others decide."""
    longest = max(required, key=lambda tied: len(tied[0]))
    before = (name[: -len(end)] for end in longest for name in names if name.endswith(f".{end}"))
    return ["", *dict.fromkeys(before)]


def _without_average(
    found: dict[str, Tensor], prefix: str, required: Sequence[Sequence[str]]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What stands under the prefix, and the names beside; a complete moving average there was not asked for."""
    prefixes = _prefixes(found, required) if required else []
    averages = [
        other for other in prefixes if other != prefix and _averaged(other) and _complete(found, other, required)
    ]
    kept = {name: item for name, item in found.items() if not any(name.startswith(other) for other in averages)}
    twice = [name for name in kept if not name.startswith(prefix) and f"{prefix}{name}" in kept]
    if twice:
        raise CheckpointError(
            f"its names match the model's under the prefix {printable(prefix)}, but some stand without it too "
            f"({few(twice)}): save the state dict of the one that you mean alone"
        )
    inside = {name.removeprefix(prefix): item for name, item in kept.items() if name.startswith(prefix)}
    return inside, tuple(printable(name) for name in kept if not name.startswith(prefix))


def _averaged(prefix: str) -> bool:
    return any(EMA.search(part) for part in prefix.split("."))


def likely_prefix(found: Collection[str], expected: Collection[str]) -> tuple[str, int] | None:
    """The first component without which most names are the model's, and how many; None where that is under a half."""
    first = {name.partition(".")[0] + "." for name in found if "." in name}
    counts = {
        prefix: sum(name.startswith(prefix) and name.removeprefix(prefix) in expected for name in found)
        for prefix in sorted(first)
    }
    best = max(counts, key=counts.__getitem__, default="")
    if not best or 2 * counts[best] < len(expected) or counts[best] <= sum(name in expected for name in found):
        return None
    return best, counts[best]
