"""Arrays in memory as batches: a slice of every array at a time, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError

__all__ = ["ArrayBatches", "Inputs", "choose_subset"]

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class ArrayBatches:
    """A re-iterable of ``(inputs, targets)``, never shuffled.

    Args:
        inputs: a tensor, a tuple or a dict of tensors, the first axis counting examples.
        targets: a tensor, or None where the model computes its own loss.
        batch_size: examples in a batch; the last one may have fewer.
    """

    def __init__(self, inputs: Inputs, targets: Tensor | None, batch_size: int) -> None:
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size
        self.examples = _common_length({**_named(inputs), **({} if targets is None else {"targets": targets})})

    def __iter__(self) -> Iterator[tuple[Any, Tensor | None]]:
        for start in range(0, self.examples, self.batch_size):
            yield self._rows(slice(start, start + self.batch_size))

    def subset(self, rows: Tensor) -> ArrayBatches:
        """The examples ``rows`` alone."""
        return ArrayBatches(*self._rows(rows), self.batch_size)

    def _rows(self, rows: slice | Tensor) -> tuple[Any, Tensor | None]:
        targets = None if self.targets is None else self.targets[rows]
        if isinstance(self.inputs, dict):
            return {name: array[rows] for name, array in self.inputs.items()}, targets
        if isinstance(self.inputs, tuple):
            return tuple(array[rows] for array in self.inputs), targets
        return self.inputs[rows], targets


def choose_subset(examples: int, wanted: int | None, seed: int) -> Tensor | None:
    """Row numbers of a random subset in ascending order, or None for all."""
    if wanted is None or wanted >= examples:
        return None
    rows = np.random.default_rng(seed).choice(examples, wanted, replace=False)
    return torch.from_numpy(np.sort(rows))


def _named(inputs: Inputs) -> dict[str, Tensor]:
    if isinstance(inputs, dict):
        return {f"inputs.{name}": array for name, array in inputs.items()}
    if isinstance(inputs, tuple):
        return {f"inputs[{place}]": array for place, array in enumerate(inputs)}
    return {"inputs": inputs}


def _common_length(arrays: dict[str, Tensor]) -> int:
    for name, array in arrays.items():
        if array.ndim == 0:
            raise DataError(f"data.{name}: found a single number, expected an array whose first axis counts examples")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"data: found arrays of several lengths ({found}), expected one length for all")
    return next(iter(lengths.values()))
