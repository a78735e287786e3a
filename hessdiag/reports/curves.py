"""Named curves against steps, as the terminal and pictures draw them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Curve", "Curves", "is_logarithmic", "points"]

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps, and the value at each; NaN where there is none."""

Curves = Mapping[str, Curve]


def points(curves: Curves) -> Iterator[tuple[float, float]]:
    """All steps with a finite value, of all curves."""
    for steps, values in curves.values():
        yield from (point for point in zip(steps, values, strict=True) if math.isfinite(point[1]))


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether they are best seen on a logarithmic scale: positive, and more than a decade apart."""
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)
