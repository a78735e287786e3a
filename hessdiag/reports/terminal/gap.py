"""The noise gap F(W) - f(W) beside what the trace predicts for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType

from hessdiag.reports.numbers import Measured, align, count, measured, number, percent, same_decimals
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import Column, heading, line, note, table
from hessdiag.results import GapResult, GapRow

__all__ = ["gap"]

_NOISE = {"shared": "one noise for the whole data", "per-batch": "a fresh noise for each batch"}


def gap(result: GapResult, canvas: Canvas) -> Iterator[RenderableType]:
    """One row for each sigma, and the sum of squares under them."""
    # Noise that is fresh for each batch has no spread over draws of its own: show the mean's error instead.
    spread = all(row.std is not None for row in result.rows)
    gaps = align([measured(row.gap, row.std if spread else row.stderr, precision=row.stderr) for row in result.rows])
    predictions = align([measured(row.predicted, row.predicted_stderr) for row in result.rows])
    sigmas = same_decimals([row.sigma for row in result.rows])
    yield heading(canvas, "Noise gap F(W) − f(W)")
    yield table(
        canvas,
        [
            Column("σ"),
            Column("gap ± std" if spread else "gap ± stderr"),
            Column("σ²/2 Tr[H] ± stderr"),
            Column("deviation ± stderr"),
        ],
        list(zip(sigmas, gaps, predictions, _deviations(result.rows), strict=True)),
    )
    if result.rss is not None:
        root = percent(math.sqrt(result.rss))
        yield line(canvas, f"RSS = {number(result.rss, 3)} (root mean square {root})")
        yield note(canvas, "RSS is the mean squared relative deviation; single rows can be further off")
    noise = _NOISE.get(result.noise, result.noise)
    yield note(canvas, f"{result.distribution}, {result.estimator}, {count(result.draws, 'draw')} for each σ, {noise}")


def _deviations(rows: tuple[GapRow, ...]) -> list[str]:
    return [
        f"{shown} %" if row.relative_deviation is not None else shown
        for row, shown in zip(rows, align([_deviation(row) for row in rows]), strict=True)
    ]


def _deviation(row: GapRow) -> Measured:
    value, error = row.relative_deviation, row.relative_deviation_stderr
    return measured(None if value is None else 100 * value, None if error is None else 100 * error, signed=True)
