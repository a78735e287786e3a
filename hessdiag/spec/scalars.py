"""What a scalar of YAML means: the core schema of YAML 1.2, not the surprises of YAML 1.1.

``1e-3`` is a number; ``no``, ``on``, ``1:30``, ``1_000`` and dates are text; ``010`` is ten (octal is ``0o10``).
"""

from __future__ import annotations

import math
import re
from typing import Any

from yaml.nodes import ScalarNode
from yaml.resolver import BaseResolver

__all__ = ["MERGE", "TEXT", "CoreResolver", "construct", "needs_quotes", "show", "show_tag"]

_PREFIX = "tag:yaml.org,2002:"
TEXT = _PREFIX + "str"
MERGE = _PREFIX + "merge"
_LARGEST = 2**63 - 1

# By tag: the form, its first characters, and what to call it. Whole numbers come before the other numbers.
_FORMS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""], "null"),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF"), "true or false"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789"), "a whole number"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
        "a number",
    ),
}
_PATTERNS = {name: re.compile(rf"(?:{form})\Z") for name, (form, _, _) in _FORMS.items()}


class CoreResolver(BaseResolver):
    """Gives plain scalars their tags by the core schema, and ``<<`` that of a merge key."""


for _name, (_, _first, _) in _FORMS.items():
    CoreResolver.add_implicit_resolver(_PREFIX + _name, _PATTERNS[_name], _first)
CoreResolver.add_implicit_resolver(MERGE, re.compile(r"<<\Z"), ["<"])


def construct(tag: str, text: str) -> Any:
    """Make the value of a scalar.

    Raises:
        ValueError: an unknown tag, a form that the tag does not allow, or a number out of range.
    """
    if tag in (TEXT, MERGE):
        _check_text(text)
        return text
    name = tag.removeprefix(_PREFIX)
    if name == tag or name not in _FORMS:
        raise ValueError(f"unknown tag {show_tag(tag)}; expected a plain value, because a spec holds no objects")
    if not _PATTERNS[name].match(text):
        raise ValueError(f"found {text!r} with the tag {show_tag(tag)}, expected {_FORMS[name][2]}")
    if name == "null":
        return None
    if name == "bool":
        return text.lower() == "true"
    return _whole(text) if name == "int" else _float(text)


def show_tag(tag: str) -> str:
    """Write a tag as a spec does: ``!!python/object``."""
    return "!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag


def show(value: Any) -> str:
    """Say what was found, so that "256" in quotes and 256 look different."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a truth value)"
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if not isinstance(value, str):
        return str(value)
    if not value:
        return "'' (empty)"
    short = value if len(value) <= 60 else value[:57] + "..."
    # "1:30" and "1_000" are text in any case, but numbers to who reads YAML 1.1 or Python.
    return f"{short!r}{' (text)' if needs_quotes(value) or value[:1].isdigit() else ''}"


def needs_quotes(text: str) -> bool:
    """Whether the text would be something else if it stood there without quotes."""
    resolver: Any = CoreResolver()
    return bool(resolver.resolve(ScalarNode, text, (True, False)) != TEXT)


def _check_text(text: str) -> None:
    # A lone half of a surrogate pair ("\ud800") can be neither printed nor part of a file name.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"found {text!r}, expected text that can be written as UTF-8") from None


def _whole(text: str) -> int:
    digits = text.lstrip("+-").lower()
    base = {"0x": 16, "0o": 8}.get(digits[:2], 10)
    # Lengths first: int() refuses some thousand digits in words of its own.
    if len(digits) > 100 or abs(int(text, base)) > _LARGEST:
        raise ValueError(f"found a whole number of {len(digits)} digits, expected at most {_LARGEST}")
    return int(text, base)


def _float(text: str) -> float:
    special = text.lower().lstrip("+-") in (".inf", ".nan")
    value = float(text.replace(".", "", 1) if special else text)
    if math.isinf(value) and not special:
        raise ValueError(f"found {text}, which no 64-bit number holds; write .inf where infinity is meant")
    return value
