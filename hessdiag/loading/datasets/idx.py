"""IDX, the form of MNIST's own files: a magic number, the lengths of the axes, the numbers; gzipped or not."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.damage import damage_told
from hessdiag.loading.datasets.pixels import ImageExamples
from hessdiag.loading.datasets.room import check_inflated, gigabytes, refuse_zeros_at_end
from hessdiag.spec.data import IdxData

__all__ = ["read"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PREFIXES = {"train": "train", "test": "t10k"}
_GZIP = b"\x1f\x8b"
_MOST_AXES = 8
_MOST_SHRUNK = 1032  # times, by gzip


def read(spec: IdxData, resolve: Callable[[str], Path]) -> ImageExamples:
    """The images and labels of a split, or of the files that the spec names.

    Raises:
        DataError: damaged, or another number of labels than of images.
        UsageError: a file is not there.
    """
    folder, prefix = resolve(spec.path), _PREFIXES[spec.split]
    images = _array(_find(folder, f"{prefix}-images", "idx3", spec.inputs, "inputs"))
    labels = _array(_find(folder, f"{prefix}-labels", "idx1", spec.targets, "targets"))
    if images.ndim not in (2, 3, 4) or labels.ndim != 1:
        raise DataError(
            f"data: found images of shape {images.shape} and labels of shape {labels.shape}, expected images (N, H, W) "
            "and labels (N)"
        )
    return ImageExamples(images[:, None] if images.ndim == 3 else images, labels, spec.mean, spec.std)


def _find(folder: Path, stem: str, axes: str, named: str | None, key: str) -> Path:
    """The file that the spec names, else that of the split under one of the names in use."""
    names = [f"{stem}{mark}{axes}-ubyte" for mark in "-."] if named is None else [named]
    for name in [*names, *(f"{name}.gz" for name in names)]:
        if (folder / name).is_file():
            return folder / name
    present = sorted(path.name for path in folder.iterdir() if path.is_file())
    shown = ", ".join(present[:8]) + (", ..." if len(present) > 8 else "")
    raise UsageError(
        f"found no file {names[0]!r} (or {names[0]}.gz) in {folder.name}, which has: {shown or 'no files'}: name the "
        "files of images and labels under data.inputs and data.targets",
        "data.path" if named is None else f"data.{key}",
    )


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        size = f"{self.nbytes} bytes" if self.nbytes < 10**9 else gigabytes(self.nbytes)
        return f"{self.dtype.name} of shape {self.shape}, {size}"


def _array(path: Path) -> np.ndarray:
    with damage_told(f"data: {path.name} cannot be read", "it is damaged, copy it again"):
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
        return _unzipped(path) if zipped else _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _header(file, path.name)
    if header.offset + header.nbytes != size:
        raise _other_length(path.name, header, str(size - header.offset))
    if not header.nbytes:  # nothing cannot be mapped
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, header.dtype, "r", header.offset, header.shape)


def _unzipped(path: Path) -> np.ndarray:
    compressed = path.stat().st_size
    refuse_zeros_at_end(path, f"data: {path.name}")
    with gzip.open(path) as file:
        header = _header(file, path.name)
        if header.nbytes > _MOST_SHRUNK * compressed:
            raise _other_length(path.name, header, f"at most {_MOST_SHRUNK * compressed}")
        check_inflated(header.nbytes, compressed, f"data: {path.name}", "gunzip it, so that it is read piecewise")
        content = file.read(header.nbytes)
        if len(content) < header.nbytes:
            raise _other_length(path.name, header, str(len(content)))
        if file.read(1):  # at the end the checksum is compared, too
            raise _other_length(path.name, header, f"more than {header.nbytes}")
    return np.frombuffer(content, header.dtype).reshape(header.shape)


def _header(file: IO[bytes] | gzip.GzipFile, shown: str) -> _Header:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= _MOST_AXES:
        raise DataError(
            f"data: {shown} begins with {magic.hex(' ') or 'nothing'}, expected an IDX file: two zero bytes, an "
            f"element type ({', '.join(f'{code:02x}' for code in _TYPES)}) and at most {_MOST_AXES} axes"
        )
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(f"data: {shown} ends within its header of {magic[3]} axes: it was cut short, copy it again")
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    return _Header(np.dtype(_TYPES[magic[2]]), shape, 4 + len(lengths))


def _other_length(shown: str, header: _Header, found: str) -> DataError:
    return DataError(
        f"data: {shown} declares {header}, but {found} bytes follow: it was cut short or overwritten, copy it again"
    )
