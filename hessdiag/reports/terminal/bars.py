"""Signed horizontal bars from a common axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from hessdiag.reports.terminal.canvas import HORIZONTAL, Canvas

__all__ = ["signed_bars"]

_POSITIVE, _NEGATIVE, _AXIS = "cyan", "red", "dim"


def signed_bars(canvas: Canvas, values: Sequence[float], width: int) -> list[Text]:
    """One bar for each value, all on one scale: positive to the right, negative in red to the left of an axis.

    Without a negative value there is no axis, and the bars have the whole width.
    """
    known = [value if math.isfinite(value) else 0.0 for value in values]
    top, bottom = max(*known, 0.0), min(*known, 0.0)
    if top == bottom:
        return [Text() for _ in known]
    if bottom == 0:
        return [canvas.text(_rightward(value / top * width), _POSITIVE) for value in known]
    # Both sides share one scale; each has at least one cell, or its bars could not be seen.
    left = min(max(round((width - 1) * bottom / (bottom - top)), 1), width - 2)
    scale = min(left / -bottom, (width - 1 - left) / top if top else math.inf)
    return [_around_axis(canvas, value * scale, left) for value in known]


def _around_axis(canvas: Canvas, cells: float, left: int) -> Text:
    minus = _leftward(-cells).rjust(left) if cells < 0 else " " * left
    return Text.assemble(
        canvas.text(minus, _NEGATIVE),
        canvas.text("│", _AXIS),
        canvas.text(_rightward(cells), _POSITIVE) if cells > 0 else "",
    )


def _rightward(cells: float) -> str:
    eighths = round(max(cells, 0.0) * 8)
    return ("█" * (eighths // 8) + HORIZONTAL[eighths % 8]).rstrip()


def _leftward(cells: float) -> str:
    halves = round(cells * 2)  # unicode has only the half block that stands on the right of its cell
    return ("▐" if halves % 2 else "") + "█" * (halves // 2)
