"""Arrays, in memory or mapped into it, as examples: a slice of every array at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.checkpoints.words import few
from hessdiag.loading.datasets.examples import Rows
from hessdiag.spec.data import NpzData, SafetensorsData

__all__ = ["Array", "ArrayExamples", "Inputs", "as_tensor", "named_examples", "numbers_only", "take_rows"]

Array: TypeAlias = np.ndarray | Tensor
Inputs: TypeAlias = Array | tuple[Array, ...] | dict[str, Array]

_MOST_NAMES = 12
_WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


class ArrayExamples:
    """Examples of arrays whose first axis counts them. An array that is mapped from a file stays there.

    Args:
        inputs: an array, a tuple or a dict of arrays, the first axis counting examples.
        targets: an array, or None where the model computes its own loss.

    Raises:
        DataError: a single number, or arrays of several lengths.
    """

    def __init__(self, inputs: Inputs, targets: Array | None) -> None:
        self.inputs, self.targets = inputs, targets
        self._length = _common_length({**_named(inputs), **({} if targets is None else {"targets": targets})})

    def __len__(self) -> int:
        return self._length

    def batch(self, rows: Rows) -> tuple[Any, Tensor | None]:
        """The rows of every array, as tensors."""

        def part(array: Array) -> Tensor:
            return as_tensor(take_rows(array, rows))

        targets = None if self.targets is None else part(self.targets)
        if targets is not None and targets.dtype is torch.bool:  # as class numbers
            targets = targets.to(torch.int64)
        if isinstance(self.inputs, dict):
            return {name: part(array) for name, array in self.inputs.items()}, targets
        if isinstance(self.inputs, tuple):
            return tuple(part(array) for array in self.inputs), targets
        return part(self.inputs), targets


def named_examples(
    spec: NpzData | SafetensorsData, names: Collection[str], read: Callable[[str], Array]
) -> ArrayExamples:
    """The arrays that a spec names, as examples; each is read once.

    Args:
        spec: names the inputs and the targets.
        names: those that the file has.
        read: opens one of them.

    Raises:
        UsageError: an array that the spec names is not there.
        DataError: one is not of numbers, or of another length than the rest.
    """
    read = cache(read)

    def take(name: str, key: str) -> Array:
        if name not in names:
            raise UsageError(
                f"found no array {name!r} in {spec.path}, which has: {few(names, _MOST_NAMES) or 'none'}", key
            )
        array = read(name)
        numbers_only(array, f"array {name!r} in {spec.path}")
        return array

    targets = None if spec.targets is None else take(spec.targets, "data.targets")
    if isinstance(spec.inputs, str):
        return ArrayExamples(take(spec.inputs, "data.inputs"), targets)
    if isinstance(spec.inputs, tuple):
        return ArrayExamples(tuple(take(name, "data.inputs") for name in spec.inputs), targets)
    return ArrayExamples({name: take(array, "data.inputs") for name, array in spec.inputs.items()}, targets)


def take_rows(array: Array, rows: Rows) -> Array:
    """The chosen rows: a view where they are consecutive, else a copy."""
    consecutive = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
    if consecutive:
        return array[int(rows[0]) : int(rows[-1]) + 1]
    return array[torch.from_numpy(rows) if isinstance(array, Tensor) else rows]


def numbers_only(array: Array, what: str) -> None:
    """Refuse what no tensor can hold, before any of it is read.

    Raises:
        DataError: text, dates, records, or numbers of a type that torch lacks.
    """
    try:
        as_tensor(array[:0] if array.ndim else array)
    except TypeError:
        raise DataError(
            f"data: {what} has type {str(array.dtype)[:80]}, expected numbers: save it as floating point (float16 to "
            "float64), whole numbers or bool"
        ) from None


def as_tensor(array: Array) -> Tensor:
    """The array as a tensor that may be written to, in a type with which torch computes.

    Raises:
        TypeError: there is none for it.
        DataError: a whole number is beyond int64.
    """
    if isinstance(array, Tensor):
        return _signed(array) if array.dtype in _WIDE_UNSIGNED else array
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not array.flags.writeable:  # mapped: a model that works in place would end the program
        array = array.copy()
    return as_tensor(torch.from_numpy(np.asarray(array)))


def _signed(tensor: Tensor) -> Tensor:
    """As int64: of the unsigned types torch computes with uint8 alone."""
    signed = tensor.to(torch.int64)
    if tensor.dtype is torch.uint64 and signed.numel() and int(signed.min()) < 0:
        raise DataError(f"data: found the whole number {int(signed.min()) % 2**64}, expected numbers below 2^63")
    return signed


def _named(inputs: Inputs) -> dict[str, Array]:
    if isinstance(inputs, dict):
        return {f"inputs.{name}": array for name, array in inputs.items()}
    if isinstance(inputs, tuple):
        return {f"inputs[{place}]": array for place, array in enumerate(inputs)}
    return {"inputs": inputs}


def _common_length(arrays: dict[str, Array]) -> int:
    for name, array in arrays.items():
        if array.ndim == 0:
            raise DataError(f"data.{name}: found a single number, expected an array whose first axis counts examples")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"data: found arrays of several lengths ({found}), expected one length for all")
    return next(iter(lengths.values()))
