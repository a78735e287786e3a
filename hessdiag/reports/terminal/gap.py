"""The noise gap F(W) - f(W) beside what the trace predicts for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType

from hessdiag.reports.numbers import Measured, align, count, measured, number, percent, same_decimals
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import Column, heading, line, note, table
from hessdiag.results import GapFit, GapResult, GapRow, SigmaSearch

__all__ = ["gap"]

_NOISE = {"shared": "one noise for the whole data", "per-batch": "a fresh noise for each batch"}


def gap(result: GapResult, canvas: Canvas) -> Iterator[RenderableType]:
    """One row for each sigma, the sum of squares under them, and what the gap is made of."""
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
            Column("σ²/2 Tr[H]"),
            Column("deviation ± stderr"),
        ],
        list(zip(sigmas, gaps, predictions, _deviations(result.rows), strict=True)),
    )
    if result.search is not None:
        yield line(canvas, _found(result.search))
    if result.rss is not None:
        root = percent(math.sqrt(result.rss))
        yield line(canvas, f"RSS = {number(result.rss, 3)} (root mean square {root})")
        yield note(canvas, "RSS is the mean squared relative deviation; single rows can be further off")
    if result.fit is not None:
        yield canvas.text("")
        yield _parts(result.fit, max(row.sigma for row in result.rows), canvas)
    noise = _NOISE.get(result.noise, result.noise)
    yield note(canvas, f"{result.distribution}, {result.estimator}, {count(result.draws, 'draw')} for each σ, {noise}")


def _found(search: SigmaSearch) -> str:
    within = f"within {percent(search.tolerance, 0)}"
    low, high = (number(sigma) for sigma in search.tried)
    if search.largest is not None:
        shown = "" if search.converged else "at least "
        return f"gap and σ²/2 Tr[H] agree {within} {shown}up to σ = {number(search.largest)}"
    if search.converged:
        return f"from σ = {low} to {high}, gap and σ²/2 Tr[H] never agree {within}"
    return f"from σ = {low} to {high}, gap and σ²/2 Tr[H] were not shown to agree {within}"


def _parts(fit: GapFit, largest: float, canvas: Canvas) -> RenderableType:
    """The Hessian's part, the kinks', and that of higher orders."""
    parts = [fit.hessian, fit.kinks, fit.higher_order]
    whole = fit.hessian.value
    shares = [Measured("", "")] * 3
    if whole:
        shares[1:] = [measured(100 * p.value / whole, abs(100 * p.stderr / whole), signed=True) for p in parts[1:]]
    return table(
        canvas,
        [Column("gap/σ² is made of", "left"), Column("value ± stderr"), Column("relative to Tr[H]/2")],
        [
            (name, value, share if not share.strip() else f"{share} %")
            for name, value, share in zip(
                ["the Hessian, Tr[H]/2", "kinks, at every σ here", f"higher order, at σ = {number(largest)}"],
                align([measured(part.value, part.stderr) for part in parts]),
                align(shares),
                strict=True,
            )
        ],
    )


def _deviations(rows: tuple[GapRow, ...]) -> list[str]:
    return [
        f"{shown} %" if row.relative_deviation is not None else shown
        for row, shown in zip(rows, align([_deviation(row) for row in rows]), strict=True)
    ]


def _deviation(row: GapRow) -> Measured:
    value, error = row.relative_deviation, row.relative_deviation_stderr
    return measured(None if value is None else 100 * value, None if error is None else 100 * error, signed=True)
