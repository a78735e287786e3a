"""The .npy form of one array, in a file of its own or in an archive: its header, checked against what follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hessdiag.errors import DataError
from hessdiag.loading.datasets.room import gigabytes

__all__ = ["MAGIC", "Header", "map_array", "read_header"]

MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Header:
    """What stands before the numbers, and how long it is."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], size: int, what: str) -> Header:
    """The header at the start of ``file``, which holds ``size`` bytes altogether.

    Raises:
        DataError: Python objects, or another number of bytes than the header declares.
        ValueError: no such header.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # version 3 is for the field names of records
        raise DataError(f"data: {what} is of version {version} of the .npy format, as records are, expected numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    header = Header(tuple(int(length) for length in shape), bool(fortran), dtype, file.tell())
    if dtype.hasobject:
        raise DataError(
            f"data: {what} holds Python objects, which are not unpickled, expected numbers: save it with a numeric "
            "dtype (examples of unequal length: padded)"
        )
    if min(header.shape, default=0) < 0 or header.offset + header.nbytes != size:
        raise DataError(
            f"data: {what} declares the shape {shape} of {dtype}, {_size(header.nbytes)}, but "
            f"{size - header.offset} bytes follow: it was cut short or overwritten, save it again"
        )
    return header


def map_array(path: Path, what: str) -> np.ndarray:
    """The array of a .npy file, mapped: only what is looked at comes into memory.

    Raises:
        DataError: Python objects, or another number of bytes than its header declares.
        ValueError: no such file format.
    """
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size, what)
    order: Any = "F" if header.fortran else "C"
    if not header.nbytes:  # nothing cannot be mapped
        return np.empty(header.shape, header.dtype, order)
    # Read only: a private writable map counts as memory, and one larger than the machine's is refused.
    return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)


def _size(nbytes: int) -> str:
    return f"{nbytes} bytes" if nbytes < 10**9 else gigabytes(nbytes)
