"""The spectral density as a plot: eigenvalues to the right, density upwards on a logarithmic scale."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from hessdiag.reports.numbers import count, number
from hessdiag.reports.terminal.axes import LABEL, Scale, axis
from hessdiag.reports.terminal.canvas import VERTICAL, Canvas
from hessdiag.reports.terminal.layout import INDENT, heading, line, note
from hessdiag.results import DensityResult

__all__ = ["density"]

_ROWS = 12
_DECADES = 12  # nothing lower is shown: there, smoothing's own tails are all that is left


def density(result: DensityResult, canvas: Canvas) -> Iterator[RenderableType]:
    """The plot, and what it was smoothed with: what is narrower than that cannot be seen in it."""
    yield heading(canvas, "Spectral density")
    width = max(canvas.figure_width - INDENT - LABEL - len(" │") - len(canvas.plain(" λ").rstrip()), 10)
    drawable = len(result.grid) > 1 and result.grid[-1] > result.grid[0]
    heights = _columns(result.grid, result.density, width) if drawable else []
    if max(heights, default=0.0) > 0:
        for label, cells in _plot(heights):
            yield line(canvas, Text.assemble(canvas.text(label, "dim"), canvas.text(cells, "cyan")))
        for row in axis(result.grid[0], result.grid[-1], width, "λ"):
            yield line(canvas, canvas.text(row, "dim"))
    else:
        yield note(canvas, "nothing to draw: no density on this grid")
    yield note(
        canvas,
        f"log scale; {count(result.steps, 'Lanczos step')}, {count(result.probes, 'probe')}, "
        f"smoothed with a Gaussian of width {number(result.bandwidth, 3)}",
    )


def _columns(grid: Sequence[float], values: Sequence[float], width: int) -> list[float]:
    """The highest density in each column of the plot, so that no narrow peak falls between two of them."""
    edges = [grid[0] + (grid[-1] - grid[0]) * column / width for column in range(width + 1)]
    found = []
    for left, right in itertools.pairwise(edges):
        inside = values[bisect.bisect_left(grid, left) : bisect.bisect_right(grid, right)]
        found.append(max([*inside, _between(grid, values, (left + right) / 2)]))
    return found


def _between(grid: Sequence[float], values: Sequence[float], x: float) -> float:
    right = min(max(bisect.bisect_right(grid, x), 1), len(grid) - 1)
    span = grid[right] - grid[right - 1]
    share = (x - grid[right - 1]) / span if span > 0 else 0.0
    return values[right - 1] + share * (values[right] - values[right - 1])


def _plot(heights: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Rows from the top down, each with its label and the axis; the scale ends one decade under the lowest peak."""
    peak = max(heights)
    top = math.ceil(math.log10(peak))
    around = zip([0.0, *heights], heights, [*heights[1:], 0.0], strict=False)
    peaks = [h for before, h, after in around if h >= max(before, after) and h > peak * 10.0**-_DECADES]
    bottom = min(max(math.floor(math.log10(min(peaks))) - 1, top - _DECADES), top - 1)
    scale = Scale(bottom, top, (top - bottom) * max(_ROWS // (top - bottom), 1))
    for row in reversed(range(scale.rows)):
        eighths = (8 * (scale.height(h) - row) if h > 0 else 0 for h in heights)
        yield scale.label(row), "".join(VERTICAL[min(max(round(e), 0), 8)] for e in eighths)
