"""What plots share: a scale upwards with its labels, and a horizontal axis with round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hessdiag.reports.numbers import number

__all__ = ["LABEL", "Scale", "axis"]

LABEL = len("1e-12")  # the room for a number at the vertical axis


@dataclass(frozen=True)
class Scale:
    """So many ``rows`` from ``low`` up to ``high``; of a logarithmic one these are powers of ten, broken ones too."""

    low: float
    high: float
    rows: int
    log: bool = True

    def height(self, value: float) -> float:
        """Of a value above the bottom, in rows; where the scale is logarithmic, of a positive one."""
        at = math.log10(value) if self.log else value
        return (at - self.low) / (self.high - self.low) * self.rows

    def label(self, row: int) -> str:
        """The round number that a row begins with or holds, if there is one, and the axis; from the bottom, from 0."""
        shown = self._labels.get(row, "")
        return f"{shown:>{LABEL}}{' ┤' if shown else ' │'}"

    @cached_property
    def _labels(self) -> dict[int, str]:
        if self.log:
            powers = range(math.ceil(self.low), math.ceil(self.high))
            shown = {10.0**power: f"1e{power:+03d}" for power in powers}
        else:
            shown = {tick: number(tick, 3) for tick in _ticks(self.low, self.high, self.rows // 3)}
        # Without rounding a number at a row's foot may fall into the row below.
        return {math.floor(round(self.height(value), 6)): label for value, label in shown.items()}


def axis(low: float, high: float, width: int, name: str) -> Iterator[str]:
    """The horizontal axis with a tick at each round number and its ``name``, and the numbers under them."""
    rule, labels = ["─"] * width, [" "] * (width + LABEL)
    taken = 0
    for tick in _ticks(low, high, max(width // 8, 1)):
        column = min(int((tick - low) / (high - low) * width), width - 1)
        shown = number(tick, 12)
        start = min(max(column + LABEL - len(shown) // 2, 0), len(labels) - len(shown))
        rule[column] = "┬"
        if start >= taken:
            labels[start : start + len(shown)] = shown
            taken = start + len(shown) + 2
    yield " " * LABEL + " └" + "".join(rule) + f" {name}"
    yield "  " + "".join(labels)


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
