"""Times and amounts of memory as people write them: ``90``, ``10m``, ``1h30m``; ``4GB``, ``512 MiB``."""

from __future__ import annotations

import math
import re

__all__ = ["MEMORY_FORMS", "MEMORY_PATTERN", "TIME_FORMS", "TIME_PATTERN", "parse_memory", "parse_time"]

TIME_FORMS = "a time greater than 0: seconds, or as 90s, 10m, 2h or 1h30m"
MEMORY_FORMS = "an amount of memory of at least 1 byte: bytes, or as 500MB, 4GB or 8GiB"

_NUMBER = r"[0-9]+(?:\.[0-9]*)?"
_SECONDS = re.compile(rf"\s*({_NUMBER})\s*s?\s*")
_PARTS = re.compile(rf"\s*(?:({_NUMBER})\s*h)?\s*(?:({_NUMBER})\s*m)?\s*(?:({_NUMBER})\s*s)?\s*")
_UNITS = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("", 1000), ("b", 1000), ("ib", 1024))
}
_MEMORY = re.compile(rf"\s*({_NUMBER})\s*([a-zA-Z]*)\s*")

# For the JSON Schema; zero is refused by the parsers.
TIME_PATTERN = rf"^\s*(?=.*[1-9])({_NUMBER}\s*s?|(?=.*[hms])({_NUMBER}\s*h)?\s*({_NUMBER}\s*m)?\s*({_NUMBER}\s*s)?)\s*$"
MEMORY_PATTERN = rf"^\s*(?=.*[1-9]){_NUMBER}\s*([kKmMgGtT]?([iI]?[bB])?)\s*$"


def parse_time(text: str) -> float:
    """Read a time: ``"90"``, ``"90s"``, ``"10m"``, ``"2h"``, ``"1h30m"``.

    Returns:
        Seconds, finite and above 0.

    Raises:
        ValueError: the text has another form, or the time is not above 0.
    """
    plain = _SECONDS.fullmatch(text)
    parts = _PARTS.fullmatch(text)
    amounts: tuple[str | None, ...] = (plain[1],) if plain else parts.groups() if parts else ()
    seconds = 0.0
    for amount in amounts:
        seconds = 60 * seconds + float(amount or 0)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"found {text!r}, expected {TIME_FORMS}")
    return seconds


def parse_memory(text: str) -> int:
    """Read an amount of memory: ``"4GB"`` (10^9 bytes each), ``"8GiB"`` (2^30), ``"500MB"``, ``"1000000"``.

    Returns:
        Bytes, at least 1.

    Raises:
        ValueError: the text has another form, or the amount is below 1 byte.
    """
    found = _MEMORY.fullmatch(text)
    unit = found[2].lower() if found else ""
    amount = float(found[1]) * _UNITS[unit] if found and unit in _UNITS else 0.0
    if not 1 <= amount < math.inf:
        raise ValueError(f"found {text!r}, expected {MEMORY_FORMS}")
    return int(amount)
