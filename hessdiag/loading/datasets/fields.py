"""One field of one record: text, numbers, or a word that stands for a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from hessdiag.errors import DataError

__all__ = ["DTYPES", "UnfitError", "numbers", "read_field", "shown", "text", "widest", "word"]

T = TypeVar("T")

DTYPES = {"b": np.dtype(np.bool_), "i": np.dtype(np.int64), "f": np.dtype(np.float64)}
"""By kind of number, in ascending order, how it is held."""


class UnfitError(ValueError):
    """A value that is not what was expected; says what it is: "is null, expected ..."."""


def read_field(record: Mapping[str, Any], name: str, read: Callable[[Any], T], place: Callable[[], str]) -> T:
    """What ``read`` makes of a field of a record.

    Raises:
        DataError: it is missing, or unfit; the message begins with the record's place.
    """
    try:
        if name not in record:
            raise UnfitError(f"is missing, expected it in every record (here: {', '.join(record) or 'none'})")
        return read(record[name])
    except UnfitError as error:
        raise DataError(f"{place()}: field {name!r} {error}") from None


def text(value: Any) -> str:
    """A text that a tokenizer can take.

    Raises:
        UnfitError: no text.
    """
    if not isinstance(value, str):
        raise UnfitError(f"is {shown(value)}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnfitError("holds half of a surrogate pair, expected Unicode text") from None
    return value


def word(value: Any, classes: Sequence[str]) -> int:
    """The number of a word.

    Raises:
        UnfitError: it is none of them.
    """
    if not isinstance(value, str) or value not in classes:
        raise UnfitError(f"is {shown(value)}, expected one of data.classes: {', '.join(classes)}")
    return classes.index(value)


def numbers(value: Any, advice: str = "") -> np.ndarray:
    """A number or nested lists of them as bool, int64 or float64, of any shape.

    Args:
        value: what stands in the record.
        advice: what to do where it is text.

    Raises:
        UnfitError: anything else, ragged, not finite, or beyond 64 bits.
    """
    expected = "expected a number, or lists of numbers of one shape"
    if isinstance(value, str):
        raise UnfitError(f"is {shown(value)}, {expected}{advice}")
    if value is None or isinstance(value, dict):
        raise UnfitError(f"is {shown(value)}, {expected}")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        raise UnfitError(f"holds lists of several lengths or depths, {expected}") from None
    kind = array.dtype.kind if array.size else "b"  # of nothing, what makes no other kind of the whole field
    if kind == "u" and not (array > np.iinfo(np.int64).max).any():
        kind = "i"
    if kind not in DTYPES:
        found = "holds other things than numbers of 64 bits" if isinstance(value, list) else f"is {shown(value)}"
        raise UnfitError(f"{found}, {expected}")
    if kind == "f" and not np.isfinite(array).all():
        raise UnfitError("holds NaN or infinity, expected finite numbers")
    return array.astype(DTYPES[kind])


def widest(one: str, other: str) -> str:
    """The kind that holds both."""
    return max(one, other, key=list(DTYPES).index)


def shown(value: Any) -> str:
    """A value of JSON, for messages."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {value[:40] + '…' if len(value) > 40 else value!r}"
    if isinstance(value, (bool, int, float)) and abs(value) < 10**20:
        return f"the number {value}"
    return {list: "a list", dict: "a mapping", int: "a number of more than 64 bits"}.get(
        type(value), f"a {type(value).__name__}"
    )
