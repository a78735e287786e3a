"""What one batch is, however the data give it: inputs, targets, a count of examples, and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError
from hessdiag.problem.graphs import GraphArguments, by_graph
from hessdiag.problem.padding import without_padding
from hessdiag.problem.structure import holds_tensors, leaves, moved_object, nbytes, plain_leaves

__all__ = ["Batch", "Fingerprint", "read_batch"]

_SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)
TARGET_KEYS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """One batch of the spec. ``inputs`` is a tensor, a tuple, a dict, or an object with ``.to(device)``."""

    index: int
    inputs: Any
    targets: Any
    examples: int
    key: str | None = None  # under which the inputs hold the targets too, for a model that computes its own loss
    graphs: Any = None  # the batch that the inputs were taken from, where they are attributes of one

    def on(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The batch on ``device``, floating-point inputs in the model's ``dtype``, integer targets as int64.

        Targets of half-precision models stay in float32: there the loss is computed.
        """
        target_dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        inputs, targets = _moved(self.inputs, device, dtype), _moved(self.targets, device, target_dtype)
        if isinstance(targets, Tensor) and targets.dtype in _SMALL_INTEGERS:
            targets = targets.to(torch.int64)
        if self.key is not None and isinstance(inputs, dict):
            inputs[self.key] = targets
        elif self.key is not None:
            with suppress(AttributeError):  # an object may keep others from writing to it
                setattr(inputs, self.key, targets)
        return Batch(self.index, inputs, targets, self.examples, self.key)

    @property
    def rows(self) -> int:
        """Over how many a loss that is one number is the mean: the rows of the targets, as the nodes of graphs."""
        rows = _count(self.targets)
        return self.examples if rows is None else rows

    def nbytes(self) -> int:
        """Bytes of all tensors in it."""
        return sum(map(nbytes, self._tensors()))

    def memory(self) -> set[int]:
        """Where its tensors lie."""
        return {tensor.data_ptr() for tensor in self._strided() if tensor.numel() > 0}

    def versions(self) -> list[int]:
        """How often each tensor in it was written to; a change shows that a model works on it in place."""
        return [tensor._version for tensor in self._strided() if not tensor.is_inference()]

    def _tensors(self) -> Iterator[Tensor]:
        return (leaf for _, leaf in leaves((self.inputs, self.targets)) if isinstance(leaf, Tensor))

    def _strided(self) -> Iterator[Tensor]:
        # A sparse tensor has no one place, and is written to whenever its entries are put in order.
        return (tensor for tensor in self._tensors() if tensor.layout is torch.strided)

    def shapes(self) -> str:
        """The inputs' shapes and dtypes, for messages."""
        shown = [
            f"{path or 'tensor'} {tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}"
            for path, leaf in leaves(self.inputs)
            if isinstance(leaf, Tensor)
        ]
        return ", ".join(shown) or type(self.inputs).__name__


def read_batch(raw: Any, index: int, *, keep_targets_in: bool = False) -> Batch:
    """Split what the data gave into inputs and targets.

    Args:
        raw: ``(inputs, targets)``; or a mapping with the targets under one of ``labels``, ``label``,
            ``targets``, ``target``, ``y``; or an object with ``.to(device)`` and ``.y`` (a graph batch); or some
            attributes of one.
        index: the batch's place in the spec's order.
        keep_targets_in: leave the targets inside a mapping, for a model that computes its own loss.

    Raises:
        DataError: the batch has another form, or no examples.
    """
    graphs = raw.graphs if isinstance(raw, GraphArguments) else None
    inputs, targets, key = _split(raw, index, keep_targets_in)
    inputs, targets = _as_tensors(inputs), _as_tensors(targets)
    for counted in (_graphs_in(inputs if graphs is None else graphs), _count(targets), _count(inputs)):
        if counted is not None:
            return Batch(index, inputs, targets, counted, key, graphs)
    raise DataError(f"batch {index}: found no tensor in it to count its examples by")


def _split(raw: Any, index: int, keep_targets_in: bool) -> tuple[Any, Any, str | None]:
    if isinstance(raw, GraphArguments):
        return raw.inputs, raw.graphs.y, None
    if isinstance(raw, Mapping):
        key = next((key for key in TARGET_KEYS if key in raw), None)
        if keep_targets_in:
            return dict(raw), raw[key] if key else None, key
        if key is None:
            raise DataError(
                f"batch {index}: found a mapping with keys {sorted(map(str, raw))}, "
                f"expected the targets under one of {', '.join(TARGET_KEYS)}"
            )
        return {name: item for name, item in raw.items() if name != key}, raw[key], None
    if isinstance(raw, (tuple, list)) and len(raw) == 2:
        return raw[0], raw[1], None
    if hasattr(raw, "to") and hasattr(raw, "y") and not isinstance(raw, Tensor):
        return raw, raw.y, "y"
    found = f"{type(raw).__name__} of length {len(raw)}" if hasattr(raw, "__len__") else type(raw).__name__
    raise DataError(f"batch {index}: found a {found}, expected (inputs, targets) or a mapping with the targets in it")


def _as_tensors(item: Any) -> Any:
    """Arrays to tensors; lists (what a DataLoader makes of tuples) to tuples."""
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item if item.flags.writeable else item.copy())
    if isinstance(item, Mapping):
        return {name: _as_tensors(value) for name, value in item.items()}
    if isinstance(item, (tuple, list)):
        return tuple(_as_tensors(value) for value in item)
    return item


def _moved(item: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(item, Tensor):
        moved = item.to(device, dtype) if item.is_floating_point() else item.to(device)
        return moved.clone() if moved.is_inference() else moved  # autograd refuses tensors of inference mode
    if isinstance(item, dict):
        return {name: _moved(value, device, dtype) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(_moved(value, device, dtype) for value in item)
    return moved_object(item, device, lambda value: _moved(value, device, dtype)) if holds_tensors(item) else item


def _graphs_in(item: Any) -> int | None:
    graphs = getattr(item, "num_graphs", None)
    return graphs if isinstance(graphs, int) else None


def _count(item: Any) -> int | None:
    for _, leaf in leaves(item):
        if isinstance(leaf, Tensor) and leaf.ndim > 0:
            return int(leaf.shape[0])
    return None


class Fingerprint:
    """A hash of the data in order, the same for every split into batches.

    Each tensor in the batch's structure is hashed row after row across batches, with its dtype and trailing
    shape wherever they change; of a batch of graphs, each graph; of texts, no padding. Changing a value or the order
    of the examples changes it.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}
        self._forms: dict[str, bytes] = {}

    def add(self, batch: Batch) -> None:
        """Take in the next batch."""
        inputs = batch.inputs if batch.graphs is None else batch.graphs
        for path, leaf in plain_leaves(by_graph(without_padding({"inputs": inputs, "targets": batch.targets}))):
            if isinstance(leaf, Tensor):
                form = json.dumps([str(leaf.dtype), list(leaf.shape[1:])]).encode()
                dense = leaf.detach().to_dense().cpu().contiguous()
                content: Any = dense.reshape(-1).view(torch.uint8).numpy()
            else:
                form, content = type(leaf).__name__.encode(), repr(leaf).encode()
            digest = self._hashes.setdefault(path, hashlib.sha256())
            if self._forms.get(path) != form:
                self._forms[path] = form
                digest.update(form)
            digest.update(content)

    def digest(self) -> str:
        """The fingerprint of all that was added."""
        parts = {name: item.hexdigest() for name, item in self._hashes.items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
