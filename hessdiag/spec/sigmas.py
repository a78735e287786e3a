"""Noise scales as text: ``start:stop:count``, or a comma list."""

from __future__ import annotations

import math

__all__ = ["SIGMA_FORMS", "check_distinct", "parse_sigmas"]

SIGMA_FORMS = 'a number, a list of numbers, "start:stop:count", "0.02,0.03" or auto'
_MOST = 1000


def parse_sigmas(text: str) -> tuple[float, ...]:
    """Read noise scales: ``"0.02:0.03:11"`` (start:stop:count, both ends included), or ``"0.02,0.03"``.

    The values of a range are rounded to 12 significant digits, so that they equal the literals: 0.021, not
    0.021000000000000001.

    Args:
        text: what stands in the spec or on the command line.

    Returns:
        The scales, in units of the weights, each finite and above 0, in the order given.

    Raises:
        ValueError: the text has another form, or a scale is not above 0 or stands there twice.
    """
    if ":" not in text:
        values = tuple(_scale(part) for part in text.split(","))
        check_distinct(values)
        return values
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"found {text!r}, expected start:stop:count, for example 0.02:0.03:11")
    return _range(_scale(parts[0]), _scale(parts[1]), _count(parts[2]))


def check_distinct(values: tuple[float, ...]) -> None:
    """Refuse a scale that stands there twice: its draws would be paid for twice and weigh double in the rss.

    Raises:
        ValueError: two of the values are equal.
    """
    seen: set[float] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"found {value:.12g} twice, expected different sigmas")
        seen.add(value)


def _range(start: float, stop: float, count: int) -> tuple[float, ...]:
    if stop < start:
        raise ValueError(f"found a range from {start:g} down to {stop:g}, expected start below stop")
    if (count == 1) != (start == stop):
        raise ValueError(
            f"found {count} value{'s' * (count > 1)} from {start:g} to {stop:g}, expected a count of 1 where "
            "start equals stop, and of at least 2 where it does not"
        )
    if count == 1:
        return (start,)
    inner = (start + (stop - start) * i / (count - 1) for i in range(1, count - 1))
    values = (start, *(float(f"{value:.12g}") for value in inner), stop)
    check_distinct(values)
    return values


def _scale(text: str) -> float:
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"found {text.strip()}, expected a finite sigma greater than 0")
    return value


def _number(text: str) -> float:
    try:
        if "_" in text:  # Python would read 1_0 as ten; YAML would not
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"found {text.strip()!r}, expected a number") from None


def _count(text: str) -> int:
    stripped = text.strip()
    # Lengths first: a count of 5000 digits is refused by int() itself, in other words.
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) < 10 and 1 <= int(stripped) <= _MOST):
        raise ValueError(f"found {stripped!r}, expected a count: a whole number from 1 to {_MOST}")
    return int(stripped)
