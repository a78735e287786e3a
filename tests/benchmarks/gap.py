"""Forward passes for the noise gap, and for what it is beyond sigma^2/2 Tr[H], to a standard error of 3 %."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np

from hessdiag.curvature.requests import DisplacedLosses, QuadraticForms
from hessdiag.estimators.probes import Probes, Stream
from tests.benchmarks.page import Target, number, section, table
from tests.benchmarks.stored import StoredHessian, stored
from tests.benchmarks.subjects import ABOUT, TINY
from tests.benchmarks.trace import FORWARD, ROUNDS, prices_of

STDERR = 0.03  # of the gap
LEAST = 8  # draws
DRAWS = 64  # from which the spreads are taken
SIGMAS = {"digits": 0.02, "cnn": 0.001, "gpt": 0.01, "gelu": 0.01, "tanh": 0.01, TINY: 0.01}
_EASY = "where the gap varies little from draw to draw, one-sided takes but a hundred passes itself"


@dataclass(frozen=True)
class _Row:
    """One network at one sigma: passes to the error wanted.

    ``products``: what one costs, in forward passes; ``beyond``: (gap - predicted) / predicted.
    """

    name: str
    sigma: float
    one_sided: float
    two_sided: float
    fresh: float
    remainder: float
    products: float
    beyond: float
    beyond_stderr: float

    @property
    def in_practice(self) -> float:
        """Forward passes' worth of the remainder, products and the least number of draws included."""
        return max(self.remainder / 2, LEAST) * (2 + self.products)


def gap(quick: bool) -> str:
    rows = [_row(stored(name), name, quick) for name in ([TINY] if quick else list(SIGMAS)[:-1])]
    columns = ["one-sided", "two-sided", "two-sided, fresh noise", "paired remainder", "in practice", "beyond", "+-"]
    cells = [
        [
            row.name,
            *map(number, (row.sigma, row.one_sided, row.two_sided, row.fresh, row.remainder, row.in_practice)),
            f"{row.beyond:+.1%}",
            f"{row.beyond_stderr:.1%}",
        ]
        for row in rows
    ]
    return section(
        "The noise gap",
        f"Forward passes until the standard error of the gap is {STDERR:.0%} of it, from the spread of {DRAWS} draws: "
        "one-sided and two-sided with one noise for all batches (as published), two-sided with fresh noise for every "
        "batch, and the paired remainder gap - U^T H U / 2 of fresh noise, whose error is that of gap - predicted. "
        "hessdiag's gap is the prediction plus the paired remainder, so with the trace known that error is all there "
        "is. It takes a product for each draw besides, which serves every sigma. Counts below one draw are of the "
        f"variance: in practice at least {LEAST} draws are taken, and the column `in practice` has those for one "
        "sigma, the products with them, in forward passes as measured. The last columns are (gap - predicted) / "
        f"predicted by the paired remainder, with its standard error after {DRAWS} draws. {ABOUT}",
        table(["network", "sigma", *columns], cells),
        [
            Target(f"the gap, one-sided over hessdiag's in practice, {where}", of, 6, because=_EASY)
            for where, of in _both([row.one_sided / row.in_practice for row in rows])
        ]
        + [
            Target(f"the remainder, one-sided over paired, {where}", of, 100, because=_EASY)
            for where, of in _both([row.one_sided / row.remainder for row in rows])
        ],
    )


def _both(ratios: list[float]) -> list[tuple[str, float]]:
    return [("median over the networks", median(ratios)), ("the worst network", min(ratios))]


def _row(H: StoredHessian, name: str, quick: bool) -> _Row:
    sigma, draws = SIGMAS[name], 8 if quick else DRAWS
    predicted = sigma**2 / 2 * H.trace
    one_sided, two_sided, _ = _gaps(H, sigma, draws, per_batch=False)
    _, fresh, quadratic = _gaps(H, sigma, draws, per_batch=True)
    remainders = fresh - quadratic
    wanted = STDERR * (predicted + remainders.mean())
    return _Row(
        name=name,
        sigma=sigma,
        one_sided=one_sided.var(ddof=1) / wanted**2,
        two_sided=2 * two_sided.var(ddof=1) / wanted**2,
        fresh=2 * fresh.var(ddof=1) / wanted**2,
        remainder=2 * remainders.var(ddof=1) / wanted**2,
        products=prices_of(H, 1 if quick else ROUNDS).product / FORWARD,
        beyond=remainders.mean() / predicted,
        beyond_stderr=remainders.std(ddof=1) / np.sqrt(draws) / predicted,
    )


def _gaps(H: StoredHessian, sigma: float, draws: int, *, per_batch: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each draw: the one-sided gap, the two-sided one, and U^T H U / 2 of the same U."""
    noise = Probes(H.n, seed=0, stream=Stream.GAP, distribution="gaussian", device=H.device, dtype=H.dtype)
    losses = DisplacedLosses(noise, range(draws), (sigma, -sigma), per_batch=per_batch)
    forms = QuadraticForms(noise, range(draws), per_batch=per_batch)
    displaced, form = (served.answer for served in H.serve([losses, forms]))
    gaps = displaced.displaced.sum(2).numpy() - float(displaced.at_weights.sum())
    return gaps[:, 0], gaps.mean(1), sigma**2 / 2 * form.sums.sum(1).numpy()
