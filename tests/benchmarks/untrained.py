"""The hard case, networks at initialisation: whether the automatic choice is ever dearer than plain Hutchinson."""

from __future__ import annotations

from statistics import fmean

import hessdiag
from tests.benchmarks.page import Target, number, section, table
from tests.benchmarks.stored import StoredHessian, stored
from tests.benchmarks.subjects import ABOUT, TINY, UNTRAINED
from tests.benchmarks.trace import PRODUCTS, ROUNDS, Prices, prices_of, variances

SEEDS = 20
RTOL = 0.05
STDERR = 0.01  # to which the costs are scaled


def untrained(quick: bool) -> str:
    rows, ratios = [], []
    for name in [TINY] if quick else UNTRAINED:
        H = stored(name)
        prices = prices_of(H, 1 if quick else ROUNDS)
        shared, fresh = (prices.product * variance / (STDERR * H.trace) ** 2 for variance in variances(H))
        auto, methods = _automatic(H, prices, range(2 if quick else SEEDS), 64 if quick else PRODUCTS)
        rows.append([name, *map(number, (H.trace, prices.product, shared, fresh, auto)), methods])
        ratios.append(auto / fresh)
    return section(
        "Untrained networks",
        f"Gradients' worth of work for a standard error of {STDERR:.0%} of the trace. Hutchinson's from its exact "
        "variance, with one probe for all batches as published, and with a fresh one for every batch as hessdiag's "
        f"plain method draws them; `auto` from runs with rtol {RTOL} over {SEEDS} seeds, pilot included: its cost "
        f"times its squared standard error, the mean over seeds. {ABOUT}",
        table(["network", "trace", "product", "Hutchinson", "fresh probes", "auto", "auto takes"], rows),
        [
            Target(
                "auto over plain Hutchinson with fresh probes, the worst network",
                max(ratios),
                1.1,
                at_least=False,
                because="the pilot is spent before the choice",
            )
        ],
    )


def _automatic(H: StoredHessian, prices: Prices, seeds: range, most: int) -> tuple[float, str]:
    """Gradients' worth for the standard error wanted, and the methods that were taken."""
    results = [hessdiag.trace(H, rtol=RTOL, max_matvecs=most, seed=seed) for seed in seeds]
    cost = fmean(prices.gradients(r.cost) * (r.stderr / (STDERR * H.trace)) ** 2 for r in results)
    return cost, ", ".join(sorted({result.method for result in results}))
