"""Curves against steps in a terminal, each with a mark of its own, so that they differ without colours too."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from hessdiag.reports.curves import Curve, Curves, is_logarithmic, points
from hessdiag.reports.terminal.axes import LABEL, Scale, axis
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import INDENT, line, note

__all__ = ["curves"]

_ROWS = 14
_STYLES = (("×", "magenta"), ("○", "yellow"), ("●", "cyan"), ("+", "green"), ("*", "red"), ("#", "blue"))
_SHOWN = 0.95  # of all points, at least: what begins far above the rest would press that together


def curves(named: Curves, canvas: Canvas, along: str = "steps") -> Iterator[RenderableType]:
    """Up to six curves, the later ones over the earlier; on a logarithmic scale where they are positive and span it.

    Where points are close their median is drawn. Losses that begin high above all others leave the plot at its top.
    """
    known = list(points(named))
    first, last = (end((step for step, _ in known), default=0.0) for end in (min, max))
    if not first < last:
        yield note(canvas, "nothing to draw: fewer than two steps with finite values")
        return
    scale = _scale(sorted(value for _, value in known))
    width = max(canvas.figure_width - INDENT - LABEL - len(f" │ {along}"), 10)
    styles = dict(zip(named, _STYLES, strict=False))
    yield line(canvas, _legend(styles, canvas))
    cells: dict[tuple[int, int], tuple[str, str]] = {}
    for name, style in styles.items():
        cells |= dict.fromkeys(_cells(named[name], scale, first, last, width), style)
    for row in reversed(range(scale.rows)):
        drawn = (canvas.text(*cells.get((row, column), (" ", ""))) for column in range(width))
        yield line(canvas, Text.assemble(canvas.text(scale.label(row), "dim"), *drawn))
    for text in axis(first, last, width, along):
        yield line(canvas, canvas.text(text, "dim"))


def _scale(values: Sequence[float]) -> Scale:
    """From the lowest of the values in their order to the highest that is shown."""
    low, high = values[0], values[-1]
    if is_logarithmic(values):
        high = values[math.ceil(_SHOWN * len(values)) - 1]
    log = is_logarithmic((low, high))
    if log:
        low, high = math.log10(low), math.log10(high)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    # The highest value is drawn in the highest row, not on top of it.
    return Scale(low, high + (high - low) / (8 * _ROWS), _ROWS, log)


def _legend(styles: dict[str, tuple[str, str]], canvas: Canvas) -> Text:
    return Text("   ").join(
        Text.assemble(canvas.text(mark, style), " ", canvas.literal(name)) for name, (mark, style) in styles.items()
    )


def _cells(curve: Curve, scale: Scale, first: float, last: float, width: int) -> Iterator[tuple[int, int]]:
    """Row and column of each mark."""
    columns = defaultdict(list)
    for step, value in points({"": curve}):
        columns[min(int((step - first) / (last - first) * width), width - 1)].append(value)
    for column, values in columns.items():
        row = math.floor(scale.height(statistics.median(values)))
        if 0 <= row < scale.rows:
            yield row, column
