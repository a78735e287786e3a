"""CIFAR-10 and CIFAR-100 as their makers publish them: binary or python version, archive or folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hessdiag.errors import DataError, HessdiagError, UsageError
from hessdiag.loading.datasets.cifar_files import find_files
from hessdiag.loading.datasets.cifar_pickle import unpickle
from hessdiag.loading.datasets.damage import damage_told
from hessdiag.loading.datasets.pixels import ImageExamples
from hessdiag.spec.data import CifarData

__all__ = ["read"]

_SHAPE = (3, 32, 32)
_PIXELS = 3072
_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


@dataclass(frozen=True)
class _Version:
    """One of the four published forms: its files by split, and how many classes each kind of label has.

    The kinds stand in the order in which a binary record has them before its pixels.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: Mapping[str, int]
    pickled: bool

    def files(self, split: str) -> tuple[str, ...]:
        """Those of a split, in their order."""
        return self.train if split == "train" else self.test


_TEN, _HUNDRED = {"fine": 10}, {"coarse": 20, "fine": 100}
_VERSIONS = (
    _Version("CIFAR-10 binary", tuple(f"{name}.bin" for name in _TRAIN), ("test_batch.bin",), _TEN, False),
    _Version("CIFAR-10 python", tuple(_TRAIN), ("test_batch",), _TEN, True),
    _Version("CIFAR-100 binary", ("train.bin",), ("test.bin",), _HUNDRED, False),
    _Version("CIFAR-100 python", ("train",), ("test",), _HUNDRED, True),
)
_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")


def read(spec: CifarData, resolve: Callable[[str], Path]) -> ImageExamples:
    """The images and labels of a split, in the order of the files.

    Raises:
        DataError: damaged, or a pickle that asks for what CIFAR's files do not hold.
        UsageError: the split's files are not there, or not the labels that the spec asks for.
    """
    wanted = {name for version in _VERSIONS for name in version.files(spec.split)}
    files = find_files(resolve(spec.path), wanted, _FOLDERS, spec.path)
    version = next((version for version in _VERSIONS if files.keys() >= set(version.files(spec.split))), None)
    if version is None:
        raise UsageError(_missing(spec, sorted(files)), "data.path")
    if spec.labels not in version.classes:
        raise UsageError(
            f"found {spec.labels}, but {version.name} has {', '.join(version.classes)} alone", "data.labels"
        )
    parts = [_part(version, name, files.pop(name), spec) for name in version.files(spec.split)]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ImageExamples(pixels.reshape(-1, *_SHAPE), labels, spec.mean, spec.std)


def _missing(spec: CifarData, found: list[str]) -> str:
    ends = [sorted({version.files(spec.split)[place] for place in (0, -1)}) for version in _VERSIONS]
    return (
        f"found {', '.join(found) or 'no file'} of the split {spec.split} in {spec.path}, expected "
        f"{'; or '.join(' to '.join(names) for names in ends)}, there or in one of {', '.join(_FOLDERS)}"
    )


def _part(version: _Version, name: str, content: bytes, spec: CifarData) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (N, 3072) and labels (N,) of one file."""
    shown = f"data.path: {name} in {spec.path}"
    try:
        with damage_told("is not a readable batch", "it is damaged, copy it again"):
            if version.pickled:
                key = "labels" if len(version.classes) == 1 else f"{spec.labels}_labels"
                pixels, labels = _of_batch(unpickle(content), key)
            else:
                pixels, labels = _of_records(content, tuple(version.classes), spec.labels)
    except HessdiagError as error:
        raise DataError(f"{shown} {error}") from None
    classes = version.classes[spec.labels]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"{shown} has labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1} in "
            f"{version.name}: it is damaged, copy it again"
        )
    return pixels, labels


def _of_records(content: bytes, kinds: tuple[str, ...], wanted: str) -> tuple[np.ndarray, np.ndarray]:
    size = len(kinds) + _PIXELS
    if len(content) % size:
        raise DataError(
            f"has {len(content)} bytes, expected a multiple of {size} (labels and pixels of an image): it was cut "
            "short, copy it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, len(kinds) :], records[:, kinds.index(wanted)].astype(np.int64)


def _of_batch(batch: Mapping[str, Any], key: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = batch.get("data"), batch.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise DataError(f"holds no array 'data' (N, {_PIXELS}), as CIFAR's batches do")
    if not isinstance(labels, list) or {*map(type, labels)} - {int} or len(labels) != len(pixels):
        raise DataError(f"holds no list {key!r} of {len(pixels)} whole numbers, as CIFAR's batches do")
    return pixels, np.array(labels, np.int64).reshape(-1)
