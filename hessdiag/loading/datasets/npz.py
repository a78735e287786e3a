"""NumPy archives, read without unpickling."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.arrays import ArrayExamples, Inputs
from hessdiag.spec.data import NpzData

__all__ = ["read"]


def read(spec: NpzData, resolve: Callable[[str], Path]) -> ArrayExamples:
    """The arrays that the spec names, as examples.

    Raises:
        DataError: damaged, empty, of Python objects, or of another length.
        UsageError: an array that the spec names is not there.
    """
    try:
        # Opened here: on a damaged archive np.load leaves its own file open.
        with resolve(spec.path).open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"data.path: {spec.path} holds one bare array (.npy), expected an .npz archive: "
                    "save inputs and targets together, np.savez(path, x=..., y=...)"
                )
            chosen, targets = _choose(spec, _Arrays(archive, spec.path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"data.path: {spec.path} is not a readable .npz archive ({error}): it was cut short, overwritten, or is of "
            "another format: copy it again, or save it by np.savez"
        ) from None
    return ArrayExamples(chosen, targets)


def _choose(spec: NpzData, arrays: _Arrays) -> tuple[Inputs, Tensor | None]:
    targets = None if spec.targets is None else arrays.take(spec.targets, "data.targets")
    if isinstance(spec.inputs, str):
        return arrays.take(spec.inputs, "data.inputs"), targets
    if isinstance(spec.inputs, tuple):
        return tuple(arrays.take(name, "data.inputs") for name in spec.inputs), targets
    return {argument: arrays.take(name, "data.inputs") for argument, name in spec.inputs.items()}, targets


class _Arrays:
    """Looks arrays up by name; each is read once."""

    def __init__(self, archive: Mapping[str, np.ndarray], shown: str) -> None:
        self._archive, self._shown = archive, shown
        self._read: dict[str, Tensor] = {}

    def take(self, name: str, key: str) -> Tensor:
        """The array, asked for under a key of the spec."""
        if name not in self._archive:
            found = ", ".join(self._archive) or "none"
            raise UsageError(f"found no array {name!r} in {self._shown}, which has: {found}", key)
        if name not in self._read:
            self._read[name] = self._tensor(name)
        return self._read[name]

    def _tensor(self, name: str) -> Tensor:
        try:
            array = self._archive[name]
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise DataError(
                f"data: array {name!r} in {self._shown} holds Python objects, which are not unpickled, expected "
                "numbers: save it with a numeric dtype (examples of unequal length: padded)"
            ) from None
        if array.dtype.kind == "u" and array.dtype.itemsize in (2, 4):  # torch computes with uint8 alone
            array = array.astype(np.int64)
        try:
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        except TypeError:
            raise DataError(f"data: array {name!r} has type {array.dtype}, expected numbers") from None
