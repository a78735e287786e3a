"""The field numbers at the top of a protobuf message: enough to tell whose it is, without its schema."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

__all__ = ["fields"]

_MOST = 10_000  # fields that are looked at; these messages have some tens
_FIXED = {1: 8, 5: 4}


def fields(path: Path) -> frozenset[int]:
    """The numbers of the fields; none where the file is no message from end to end."""
    size = path.stat().st_size
    found: set[int] = set()
    with path.open("rb") as file:
        for _ in range(_MOST):
            if file.tell() == size:
                return frozenset(found)
            number = _skip_field(file)
            if number is None or file.tell() > size:
                return frozenset()
            found.add(number)
    return frozenset(found)


def _skip_field(file: BinaryIO) -> int | None:
    """Step over one field; its number, None where there is none."""
    tag = _number(file)
    if tag is None or tag < 8:
        return None
    kind = tag & 7
    if kind == 0:
        return None if _number(file) is None else tag >> 3
    length = _number(file) if kind == 2 else _FIXED.get(kind)
    if length is None:
        return None
    file.seek(length, 1)
    return tag >> 3


def _number(file: BinaryIO) -> int | None:
    """A whole number of up to ten bytes of seven bits each."""
    value = 0
    for position in range(10):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << 7 * position
        if byte[0] < 128:
            return value
    return None
