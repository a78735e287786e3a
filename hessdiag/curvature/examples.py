"""The examples of a batch one at a time, where its inputs tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hessdiag.problem import Batch

__all__ = ["by_tensor", "one_example", "some_examples", "tells_examples_apart"]


def tells_examples_apart(batch: Batch) -> bool:
    """Whether each tensor of the inputs has the examples in its first dimension."""
    return batch.examples > 0 and _rows_everywhere(batch.inputs, batch.examples)


def one_example(batch: Batch, number: int) -> Batch:
    """Example ``number`` as a batch of its own, without targets."""
    return Batch(batch.index, by_tensor(batch.inputs, lambda leaf: leaf[number : number + 1]), None, 1)


def some_examples(batch: Batch, numbers: Tensor) -> Batch:
    """The examples of these ``numbers`` as a batch, without targets."""
    return Batch(batch.index, by_tensor(batch.inputs, lambda leaf: leaf[numbers]), None, len(numbers))


def by_tensor(inputs: Any, change: Callable[[Tensor], Any]) -> Any:
    """The inputs with ``change`` made to each tensor; other things stay as they are."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: by_tensor(value, change) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(by_tensor(value, change) for value in inputs)
    return inputs


def _rows_everywhere(inputs: Any, examples: int) -> bool:
    if isinstance(inputs, Tensor):
        return inputs.layout is torch.strided and inputs.ndim > 0 and inputs.shape[0] == examples
    if isinstance(inputs, dict):
        return all(_rows_everywhere(value, examples) for value in inputs.values())
    if isinstance(inputs, tuple):
        return all(_rows_everywhere(value, examples) for value in inputs)
    return inputs is None or isinstance(inputs, (bool, int, float, str))
