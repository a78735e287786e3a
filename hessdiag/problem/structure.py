"""What a batch is made of: containers, objects that hold tensors as attributes, and the tensors in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["holds_tensors", "leaves", "moved_object", "nbytes", "plain_leaves", "shallow_copy"]


def holds_tensors(item: Any) -> bool:
    """Whether this is an object that can be moved to a device, such as a graph batch, and no tensor."""
    return hasattr(item, "to") and not isinstance(item, (Tensor, Mapping, type))


def leaves(item: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What stands at the ends, each with its path: tensors, numbers, words, objects that do not tell their content."""
    if isinstance(item, Mapping):
        for name in sorted(item, key=str):
            yield from leaves(item[name], f"{path}.{name}" if path else str(name))
    elif isinstance(item, (tuple, list)):
        for place, value in enumerate(item):
            yield from leaves(value, f"{path}[{place}]")
    elif (held := _attributes(item)) is not None:
        yield from leaves(held, path)
    else:
        yield path, item


def plain_leaves(item: Any) -> Iterator[tuple[str, Any]]:
    """As :func:`leaves`; of a sparse matrix, the entries in each row, their columns and their values."""
    for path, leaf in leaves(item):
        if isinstance(leaf, Tensor) and leaf.layout is not torch.strided and leaf.ndim == 2:
            entries = leaf.detach().to_sparse().coalesce()
            rows, columns = entries.indices()
            yield f"{path}.rows", torch.bincount(rows, minlength=len(leaf))
            yield f"{path}.columns", columns
            yield f"{path}.values", entries.values()
        else:
            yield path, leaf


def _attributes(item: Any) -> Mapping[Any, Any] | None:
    """What an object holds, by name; None where it does not tell, or is no such object."""
    if not holds_tensors(item):
        return None
    if hasattr(item, "to_dict"):
        held = item.to_dict()
    elif hasattr(item, "coo"):  # torch_sparse's matrices
        held = dict(zip(("row", "col", "value"), item.coo(), strict=True))
    else:
        held = getattr(item, "__dict__", None)
    return held if isinstance(held, Mapping) else None


def shallow_copy(item: Any) -> Any:
    """The same tensors in containers of their own, so that a model may put others in their place."""
    if isinstance(item, dict):
        return {name: shallow_copy(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(shallow_copy(value) for value in item)
    return copy.copy(item) if holds_tensors(item) else item


def moved_object(item: Any, device: torch.device, move: Callable[[Any], Any]) -> Any:
    """A copy of an object whose tensors went through ``move``; the caller's object stays as it is."""
    # Copied first: PyTorch Geometric's own .to and .apply write into the object that they are called on.
    if hasattr(item, "apply"):
        return copy.copy(item).apply(move)
    result = copy.copy(copy.copy(item).to(device))
    held = getattr(result, "__dict__", {})
    held.update({name: move(value) for name, value in held.items() if isinstance(value, Tensor)})
    return result


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor, of any layout."""
    if tensor.layout is torch.sparse_coo:
        return tensor._values().nbytes + tensor._indices().nbytes
    return tensor.nbytes
