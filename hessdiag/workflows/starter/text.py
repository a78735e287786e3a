"""A commented YAML text from lines: values quoted where they must be, comments below each other."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FILL_IN", "Line", "flow", "relative", "remark", "render", "visible"]

FILL_IN = "FILL_IN"
"""Stands where nothing could be found out; no spec that holds it is valid."""

_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*(:\w+)?\Z", re.ASCII)  # "model.py:build" is plain too
_NOT_TEXT = re.compile(r"(null|true|false|yes|no|on|off|\.inf|\.nan|[-+.]?[\d.].*)\Z", re.IGNORECASE)
_COLUMN = 36


@dataclass(frozen=True)
class Line:
    """What stands on a line, and the comment behind it; without content the comment begins at ``indent``."""

    content: str = ""
    comment: str = ""
    indent: int = 2


def remark(comment: str, indent: int = 2) -> Line:
    """A comment on a line of its own."""
    return Line("", comment, indent)


def render(lines: Iterable[Line]) -> str:
    """The lines as text, with a newline at its end."""
    return "".join(f"{_rendered(line)}\n" for line in lines)


def _rendered(line: Line) -> str:
    comment = f"# {visible(line.comment)}".rstrip() if line.comment else ""
    if not line.content:
        return " " * line.indent + comment if comment else ""
    content = " " * line.indent + line.content
    return f"{content.ljust(_COLUMN)}  {comment}" if comment else content


def flow(value: Any) -> str:
    """A value on one line, as YAML."""
    if isinstance(value, str):
        return value if _PLAIN.match(value) and not _NOT_TEXT.match(value) else _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value)


def relative(path: Path, folder: Path) -> str:
    """A path as a spec in ``folder`` names it."""
    try:
        return Path(os.path.relpath(path.expanduser().absolute(), folder)).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def visible(text: str) -> str:
    """Escape what is not printable: a name from a file must neither end a comment nor steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _quoted(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in shown)
