"""The first rows of a table or of records, and what they tell of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hessdiag.errors import DataError
from hessdiag.workflows.starter.guess import Kind
from hessdiag.workflows.starter.text import Line, flow

__all__ = ["ROWS", "Columns", "begin_of", "classes", "kind_of", "words_for"]

ROWS = 1000
_MOST_BYTES = 1 << 20
_MOST_CLASSES = 200

Columns = Mapping[str, Sequence[Any]]
"""The first values of each column, by its name."""


def begin_of(path: Path) -> str:
    """The first lines of a text file, whole ones.

    Raises:
        DataError: it is not text.
    """
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES)
    if len(raw) == _MOST_BYTES:
        raw = raw[: raw.rfind(b"\n") + 1]
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: found byte 0x{raw[error.start]:02x} at offset {error.start}, which is not UTF-8; "
            "expected text"
        ) from None


def kind_of(values: Sequence[Any]) -> Kind:
    """Of a column; the cells of a csv are texts."""
    known = [value for value in values if value is not None and value != ""]
    if not known or not all(isinstance(value, (str, int, float)) for value in known):
        return "other"
    if all(_is_whole(value) for value in known):
        return "integers"
    return "floats" if all(_is_number(value) for value in known) else "words"


def words_for(values: Sequence[Any]) -> str:
    """What a column holds, for a remark."""
    kind = kind_of(values)
    if kind == "other":
        first = next((value for value in values if value is not None and value != ""), None)
        return "nothing" if first is None else f"of type {type(first).__name__}"
    return {"integers": "whole numbers", "floats": "numbers", "words": "text"}[kind]


def classes(values: Sequence[Any]) -> list[Line]:
    """The line that gives words their numbers, where the targets are words."""
    if kind_of(values) != "words":
        return []
    words = sorted({str(value) for value in values if value not in (None, "")})
    if len(words) > _MOST_CLASSES:
        return [Line("classes: []", f"FILL_IN: found more than {_MOST_CLASSES} words; are these the targets?")]
    return [Line(f"classes: {flow(words)}", f"of the first {len(values)} rows; in the order of the model's outputs")]


def _is_whole(value: str | int | float) -> bool:
    return _parses(int, value) if isinstance(value, str) else isinstance(value, int)


def _is_number(value: str | int | float) -> bool:
    return _parses(float, value) if isinstance(value, str) else True


def _parses(number: type[int] | type[float], text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return "_" not in text
