"""CIFAR's pickled batches, read so that nothing in them runs: a few harmless records stand in for NumPy's own."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import Counter
from typing import Any

import numpy as np

from hessdiag.errors import DataError
from hessdiag.loading.checkpoints.words import printable

__all__ = ["unpickle"]

# What the makers' files consist of, and those that Python 3 writes of the same dictionary. Others can build objects,
# or make a short file costly.
_OPCODES = """
PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1
EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINUNICODE SHORT_BINUNICODE
BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
""".split()  # noqa: SIM905 (a list of forty quoted words would be harder to read)
_MOST_TUPLES = 24  # tuples of tuples take twice as long to hash with each level


class _Record:
    """The arguments and the state with which an object would be made."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """An array as ``_reconstruct`` would make it: state (version, shape, dtype, fortran order, bytes)."""


class _ArrayType(_Record):
    """The class that ``_reconstruct`` is told to make."""


class _DType(_Record):
    """A dtype by its name."""


class _Bytes(bytes):
    """Bytes as Python 3 writes them for Python 2: a text, to be encoded."""

    def __new__(cls, text: str, encoding: str) -> _Bytes:
        return super().__new__(cls, text.encode("latin-1"))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("bytes with a state")


_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            asked = printable(f"{module}.{name}")
            raise DataError(f"asks for {asked}, which CIFAR's own files never do: it is refused and nothing ran")
        return _GLOBALS[module, name]


def unpickle(content: bytes) -> dict[str, Any]:
    """The dictionary of a batch: arrays of bytes as NumPy arrays, the rest as it is.

    Raises:
        DataError: it asks for anything that CIFAR's files do not hold.
        Exception: damaged; of many kinds.
    """
    _inspect(content)
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict):
        raise DataError(f"holds a {type(batch).__name__}, expected the dictionary of a batch")
    return {_text(key): _as_array(item) if isinstance(item, _Array) else item for key, item in batch.items()}


def _inspect(content: bytes) -> None:
    """Refuse a pickle for its opcodes, and for sizes beyond its own, before any room is made for them."""
    seen: Counter[str] = Counter()
    for opcode, argument, _ in pickletools.genops(content):
        seen[opcode.name] += 1
        if opcode.name not in _OPCODES:
            raise DataError(f"has the pickle opcode {opcode.name}, which CIFAR's own files never have: it is refused")
        if opcode.name == "LONG_BINPUT" and (argument or 0) > len(content):
            raise DataError(f"numbers an object {argument}, more than it has bytes: it is damaged, copy it again")
    if sum(count for name, count in seen.items() if "TUPLE" in name) > _MOST_TUPLES:
        raise DataError("has more tuples than CIFAR's own files: it is refused")


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _as_array(record: _Array) -> np.ndarray:
    """Bytes in the shape that the record tells.

    Raises:
        DataError: another type, or another number of bytes.
    """
    _, shape, dtype, fortran, content = record.state
    if not isinstance(dtype, _DType) or _text(dtype.arguments[0]) != "u1" or not isinstance(content, bytes):
        raise DataError("holds an array of another type than uint8")
    if min(shape, default=0) < 0 or math.prod(shape) != len(content):
        raise DataError(f"declares an array of shape {shape}, but {len(content)} bytes follow: it is damaged")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")
