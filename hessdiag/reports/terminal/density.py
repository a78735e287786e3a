"""The spectral density as a plot: eigenvalues to the right, density upwards on a logarithmic scale."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from hessdiag.reports.numbers import count, number
from hessdiag.reports.terminal.canvas import VERTICAL, Canvas
from hessdiag.reports.terminal.layout import INDENT, heading, line, note
from hessdiag.results import DensityResult

__all__ = ["density"]

_ROWS = 12
_DECADES = 12  # nothing lower is shown: there, smoothing's own tails are all that is left
_LABEL = len("1e-12")


def density(result: DensityResult, canvas: Canvas) -> Iterator[RenderableType]:
    """The plot, and what it was smoothed with: what is narrower than that cannot be seen in it."""
    yield heading(canvas, "Spectral density")
    width = max(canvas.figure_width - INDENT - _LABEL - len(" │") - len(canvas.plain(" λ").rstrip()), 10)
    drawable = len(result.grid) > 1 and result.grid[-1] > result.grid[0]
    heights = _columns(result.grid, result.density, width) if drawable else []
    if max(heights, default=0.0) > 0:
        for label, cells in _plot(heights):
            axis = canvas.text(f"{label:>{_LABEL}}{' ┤' if label else ' │'}", "dim")
            yield line(canvas, Text.assemble(axis, canvas.text(cells, "cyan")))
        for row in _axis(result.grid[0], result.grid[-1], width):
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
    """Rows from the top down, each with its label; the scale ends one decade under the lowest peak."""
    peak = max(heights)
    top = math.ceil(math.log10(peak))
    around = zip([0.0, *heights], heights, [*heights[1:], 0.0], strict=False)
    peaks = [h for before, h, after in around if h >= max(before, after) and h > peak * 10.0**-_DECADES]
    bottom = min(max(math.floor(math.log10(min(peaks))) - 1, top - _DECADES), top - 1)
    each = max(_ROWS // (top - bottom), 1)  # rows in one decade
    for row in reversed(range((top - bottom) * each)):
        label = f"1e{bottom + row // each:+03d}" if row % each == 0 else ""
        eighths = (8 * (each * (math.log10(h) - bottom) - row) if h > 0 else 0 for h in heights)
        cells = "".join(VERTICAL[min(max(round(e), 0), 8)] for e in eighths)
        yield label, cells


def _axis(low: float, high: float, width: int) -> Iterator[str]:
    """The axis line with a tick at each round eigenvalue, and the numbers under them."""
    rule, labels = ["─"] * width, [" "] * (width + _LABEL)
    taken = 0
    for tick in _ticks(low, high, max(width // 8, 1)):
        column = min(int((tick - low) / (high - low) * width), width - 1)
        shown = number(tick, 12)
        start = min(max(column + _LABEL - len(shown) // 2, 0), len(labels) - len(shown))
        rule[column] = "┬"
        if start >= taken:
            labels[start : start + len(shown)] = shown
            taken = start + len(shown) + 2
    yield " " * _LABEL + " └" + "".join(rule) + " λ"
    yield "  " + "".join(labels)


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
