"""Tensors by name into a model; what does not fit is told with counts, the first few, and the likely cause."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.causes import likely_cause
from hessdiag.loading.checkpoints.prefixes import align
from hessdiag.loading.checkpoints.words import printable

__all__ = ["load_weights"]

Tensors = Mapping[str, Tensor]


def load_weights(model: nn.Module, tensors: Tensors, shown: str) -> tuple[str, ...]:
    """Copy the tensors into the model's parameters and buffers.

    Prefixes of wrappers (``module.``, ``_orig_mod.``, ``model.``, Lightning's ``net.``, ...) are taken from the
    names where that gives every name of the model, and only there.

    Returns:
        The names of tensors that stand beside the model's under no such prefix, and are left out.

    Raises:
        CheckpointError: names, shapes or kinds of number differ from the model's.
    """
    expected = {name: item for name, item in model.state_dict().items() if isinstance(item, Tensor)}
    try:
        tensors, left_out = align(tensors, _required(expected))
    except CheckpointError as error:
        raise CheckpointError(f"{shown}: {error}") from error
    complaints = [
        *_wrong_shapes(expected, tensors),
        *_wrong_kinds(expected, tensors),
        *_untied(expected, tensors),
    ]
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if not complaints:
        missing, unexpected = _copy(model, tensors, shown)
    complaints += [*_missing(missing, expected, tensors), *_unexpected(unexpected, tensors)]
    if complaints:
        raise CheckpointError(
            f"{shown} does not fit the model: {'; '.join([*complaints, likely_cause(expected, tensors)])}"
        )
    return left_out


def _copy(model: nn.Module, tensors: Tensors, shown: str) -> tuple[list[str], list[str]]:
    """Copy what fits, and tell the names that are missing and those that are unexpected.

    Torch tells them, because a module may read the names of its earlier versions, as weight_norm does.
    """
    try:
        missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    except (RuntimeError, NotImplementedError) as error:  # tensors without data or without a dense form
        raise CheckpointError(
            f"{shown}: its tensors could not be copied ({_cause(error)}), expected dense tensors with their data: "
            "save them so"
        ) from error
    return missing, unexpected


def _cause(error: Exception) -> str:
    """What torch says of the first tensor; it tells a paragraph for each."""
    first = re.search(r"exception occurred : \('(.*?)'", str(error))
    return printable(first[1] if first else str(error).strip().partition("\n")[0])


def _required(expected: Tensors) -> list[list[str]]:
    """The names without which the model is not filled; of tied ones, any does."""
    tied: dict[int | str, list[str]] = {}
    for name, tensor in expected.items():
        if not _counts_batches(name):
            tied.setdefault(tensor.data_ptr() if tensor.numel() else name, []).append(name)
    return list(tied.values())


def _counts_batches(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # checkpoints from before torch 0.4.1 lack it


def _wrong_shapes(expected: Tensors, found: Tensors) -> list[str]:
    wrong = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    if not wrong:
        return []
    first = wrong[0]
    return [
        f"{_tensors(len(wrong), 'has', 'have')} another shape (first: {printable(first)} is "
        f"{tuple(found[first].shape)}, the model expects {tuple(expected[first].shape)})"
    ]


def _wrong_kinds(expected: Tensors, found: Tensors) -> list[str]:
    """Whole or complex numbers where the model has reals, as quantised weights; fractions where it has whole ones."""
    wrong = [name for name, item in expected.items() if name in found and not _becomes(found[name], item)]
    if not wrong:
        return []
    first = wrong[0]
    return [
        f"{_tensors(len(wrong), 'is', 'are')} of another kind of number (first: {printable(first)} is "
        f"{_dtype(found[first])}, the model expects {_dtype(expected[first])})"
    ]


def _becomes(found: Tensor, expected: Tensor) -> bool:
    """Whether it means the same as the model's kind of number."""
    if expected.is_floating_point():
        return found.is_floating_point()
    if expected.is_complex() or not (found.is_floating_point() or found.is_complex()):
        return True
    return torch.equal(found.to(expected.dtype).to(found.dtype), found) if _has_values(found) else True


def _has_values(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta


def _untied(expected: Tensors, found: Tensors) -> list[str]:
    """Of the values under two names for one tensor, one would be lost."""
    for tied in _required(expected):
        there = [name for name in tied if name in found and expected[name].shape == expected[tied[0]].shape]
        for name in there[1:]:
            one, other = found[there[0]], found[name]
            if _has_values(one) and _has_values(other) and not torch.equal(one, other):
                names = f"{printable(there[0])} and {printable(name)}"
                return [f"{names} differ, which are one tensor in the model"]
    return []


def _missing(names: list[str], expected: Tensors, found: Tensors) -> list[str]:
    shared = {expected[name].data_ptr() for name in found if name in expected}
    missing = [
        name
        for name in names
        if name in expected
        and not _counts_batches(name)
        and not (expected[name].numel() and expected[name].data_ptr() in shared)  # tied to one that is there
    ]
    if not missing:
        return []
    return [f"it lacks {len(missing)} of the model's {_tensors(len(expected))} ({_first(missing, expected)})"]


def _unexpected(names: list[str], found: Tensors) -> list[str]:
    if not names:
        return []
    return [f"it has {_tensors(len(names))} that the model lacks ({_first(names, found)})"]


def _tensors(count: int, singular: str = "", plural: str = "") -> str:
    verb = singular if count == 1 else plural
    return " ".join(filter(None, [f"{count} tensor{'s' * (count != 1)}", verb]))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first(names: list[str], tensors: Tensors) -> str:
    shown = ", ".join(f"{printable(name)} {tuple(tensors[name].shape)}" for name in names[:3])
    return f"first: {shown}" + (", ..." if len(names) > 3 else "")
