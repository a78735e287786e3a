"""How numbers are written for people: a value to the digits that its error leaves it.

An error keeps two significant digits up to 35, one above (the Particle Data Group's rule), and its value is
rounded at the same place: 48.3 ± 0.4, 1.234e-05 ± 2.0e-07.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

__all__ = [
    "NONE",
    "Measured",
    "align",
    "count",
    "duration",
    "interval",
    "measured",
    "number",
    "percent",
    "rough_duration",
    "roughly",
    "same_decimals",
]

NONE = "–"
_DIGITS = 8  # a smaller error does not earn its value more digits than a person reads


class Measured(NamedTuple):
    """A value and its error, written to the same decimal place."""

    value: str
    error: str

    def __str__(self) -> str:
        return f"{self.value} ± {self.error}" if self.error else self.value


def measured(
    value: float | None, error: float | None, *, signed: bool = False, precision: float | None = None
) -> Measured:
    """A value beside its error; without a finite error the value stands alone.

    ``precision`` is the error that decides the digits where what stands beside is another one: a spread over
    draws is wider than the error of their mean.
    """
    if value is None:
        return Measured(NONE, "")
    if error is None or not math.isfinite(value) or not math.isfinite(error):
        return Measured(number(value, signed=signed), "" if error is None else number(error))
    if error == 0:
        return Measured(number(value, signed=signed), "0")
    place = _place(value, precision or error)
    if _is_fixed(value, error, place):
        return Measured(_fixed(value, place, signed=signed), _fixed_error(abs(error), place))
    sign = "+" if signed else ""
    decimals = max(_exponent(value) - place, 0)
    return Measured(f"{value:{sign}.{decimals}e}", f"{abs(error):.{max(_exponent(error) - place, 0)}e}")


def interval(low: float, high: float, error: float) -> str:
    """An interval to the digits of a value with this error, rounded outwards so that it still holds the truth."""
    widest = max(abs(low), abs(high))
    if not math.isfinite(widest) or not math.isfinite(error) or error == 0:
        return f"[{number(low, 8)}, {number(high, 8)}]"
    place = _place(widest, error)
    ends = ((low, ROUND_FLOOR), (high, ROUND_CEILING))
    if _is_fixed(widest, error, place):
        lower, upper = (_fixed(end, place, rounding=rounding) for end, rounding in ends)
    else:
        rounded = (float(_round(end, place, rounding)) for end, rounding in ends)
        lower, upper = (f"{end:.{max(_exponent(end) - place, 0)}e}" for end in rounded)
    return f"[{lower}, {upper}]"


def number(value: float | None, digits: int = 6, *, signed: bool = False) -> str:
    """A number that has no error of its own, to so many significant digits."""
    if value is None:
        return NONE
    return f"{value:{'+' if signed else ''}.{digits}g}"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in per cent, with so many decimals."""
    shown = f"{100 * fraction:.{digits}f}"
    return f"{'0.0' if shown == '-0.0' else shown} %"


def count(amount: float, noun: str = "", plural: str = "") -> str:
    """A count with its thousands set apart, and what is counted; passes over the data may be broken."""
    shown = f"{int(amount):,}" if amount == int(amount) else f"{amount:,.2f}"
    return f"{shown} {noun if amount == 1 else plural or noun + 's'}" if noun else shown


def same_decimals(values: Sequence[float]) -> list[str]:
    """Numbers without error in a column: 0.02 and 0.025 as 0.020 and 0.025."""
    shown = [number(value) for value in values]
    if any("e" in cell for cell in shown):
        return shown
    decimals = max((len(cell.partition(".")[2]) for cell in shown), default=0)
    return [f"{value:.{decimals}f}" for value in values]


def duration(seconds: float) -> str:
    """A time in the unit that a person would take: 8.4 s, 2m05s, 1h03m."""
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def roughly(amount: float) -> int:
    """A guess to one digit, or to two where the first is 1 or 2: 43 as 40, 126 as 130; at least 1."""
    if amount < 10:
        return max(round(amount), 1)
    place = _exponent(amount) - (f"{amount:e}"[0] in "12")
    return round(amount / 10.0**place) * int(10.0**place)


def rough_duration(seconds: float) -> str:
    """A guessed time: less than a second, 8 s, 2 min, 3 h, 4 days."""
    if seconds < 1:
        return "less than a second"
    for size, unit, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds / size < most:
            return f"{roughly(seconds / size)} {unit}"
    return f"{roughly(seconds / 86400)} days"


def align(cells: Sequence[Measured]) -> list[str]:
    """Values with errors below each other: decimal points in one column, and the ± signs too."""
    tails = [len(cell.value) - len(_whole(cell.value)) for cell in cells]
    values = [c.value + " " * (max(tails) - tail) for c, tail in zip(cells, tails, strict=True)]
    width = max((len(value) for value in values), default=0)
    values = [value.rjust(width) for value in values]
    lines = [f"{v} ± {c.error}" if c.error else v for v, c in zip(values, cells, strict=True)]
    longest = max((len(line) for line in lines), default=0)
    return [line.ljust(longest) for line in lines]


def _whole(shown: str) -> str:
    """What stands before the decimal point; all of it where there is none."""
    return shown.split(".")[0]


def _exponent(value: float) -> int:
    """The decimal exponent of the leading digit; zero's is taken as very small."""
    return Decimal(repr(float(value))).adjusted() if value else -400


def _place(value: float, error: float) -> int:
    """The power of ten of the last digit to show."""
    exponent = _exponent(error)
    leading = int(abs(Decimal(repr(float(error))).scaleb(2 - exponent)))
    place = exponent - 1 if leading < 355 else exponent
    return max(place, _exponent(value) - _DIGITS + 1)


def _is_fixed(value: float, error: float, place: int) -> bool:
    return -5 < max(_exponent(value), _exponent(error)) < 6 and place > -10


def _round(value: float, place: int, rounding: str) -> Decimal:
    unit = Decimal(1).scaleb(place)
    return (Decimal(repr(float(value))) / unit).to_integral_value(rounding) * unit


def _fixed(value: float, place: int, *, signed: bool = False, rounding: str = ROUND_HALF_EVEN) -> str:
    rounded = _round(value, place, rounding) + 0  # + 0: no negative zero
    shown = f"{rounded:.{max(-place, 0)}f}"
    return "+" + shown if signed and rounded > 0 else shown


def _fixed_error(error: float, place: int) -> str:
    shown = _fixed(error, place)
    return shown if Decimal(shown) else f"{error:.0e}"  # never "± 0" for an error that is not zero
