"""Arrays, in memory or mapped into it, as examples: a slice of every array at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import DataError
from hessdiag.loading.datasets.examples import Rows

__all__ = ["ArrayExamples", "Inputs"]

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class ArrayExamples:
    """Examples of arrays whose first axis counts them.

    Args:
        inputs: a tensor, a tuple or a dict of tensors, the first axis counting examples.
        targets: a tensor, or None where the model computes its own loss.

    Raises:
        DataError: a single number, or arrays of several lengths.
    """

    def __init__(self, inputs: Inputs, targets: Tensor | None) -> None:
        self.inputs, self.targets = inputs, targets
        self._length = _common_length({**_named(inputs), **({} if targets is None else {"targets": targets})})

    def __len__(self) -> int:
        return self._length

    def batch(self, rows: Rows) -> tuple[Any, Tensor | None]:
        """The rows of every array."""
        consecutive = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
        chosen = slice(int(rows[0]), int(rows[-1]) + 1) if consecutive else torch.from_numpy(rows)
        targets = None if self.targets is None else self.targets[chosen]
        if isinstance(self.inputs, dict):
            return {name: array[chosen] for name, array in self.inputs.items()}, targets
        if isinstance(self.inputs, tuple):
            return tuple(array[chosen] for array in self.inputs), targets
        return self.inputs[chosen], targets


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
