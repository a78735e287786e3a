"""How often nominal 95 % intervals of the trace hold the truth, and how wide they are, by method and network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import hessdiag
from hessdiag.estimators.trace import METHODS
from tests.benchmarks.page import Target, section, table
from tests.benchmarks.stored import StoredHessian, stored
from tests.benchmarks.subjects import ABOUT, TINY, TRAINED, UNTRAINED

SEEDS = 200
RTOL = 0.05
PRODUCTS = 64  # allowed; where they run out the interval must hold all the same
COVERAGE = 0.92
WIDTH = 1.5
EXACT = 1e-6  # relative: the stored matrices are float32, and below it there is nothing left to cover but rounding
NORMAL = 1.96


@dataclass(frozen=True)
class _Cell:
    """One method on one network."""

    network: str
    method: str
    coverage: float
    width: float
    error: float
    products: float

    @property
    def exact(self) -> bool:
        return self.error < EXACT

    def __str__(self) -> str:
        return f"{self.coverage:.1%}, " + ("exact" if self.exact else f"{self.width:.2f}")


def coverage(quick: bool) -> str:
    names = [TINY] if quick else [name for name in (*TRAINED, *UNTRAINED) if name not in ("gelu", "tanh")]
    cells = {
        (name, method): _cell(stored(name), name, method, 3 if quick else SEEDS) for name in names for method in METHODS
    }
    rows = [[name, *[str(cells[name, method]) for method in METHODS]] for name in names]
    spent = [[name, *[f"{cells[name, m].error:.2%}, {cells[name, m].products:.0f}" for m in METHODS]] for name in names]
    return section(
        "Coverage of 95 % intervals",
        f"`trace(H, rtol={RTOL}, max_matvecs={PRODUCTS})` over {SEEDS} seeds on stored Hessians, one matrix for each "
        "batch (output draws from the live network): how many intervals hold the trace, and their median width over "
        "the ideal one, 2 * 1.96 times the root mean square error of the estimates themselves. Below: that error "
        "relative to the trace, and the mean number of products. The stored matrices are float32, so the trace is "
        f"known to {EXACT:g} only. {ABOUT}",
        table(["coverage, width", *METHODS], rows),
        table(["error, products", *METHODS], spent),
        _targets(list(cells.values())),
    )


def _cell(H: StoredHessian, name: str, method: str, seeds: int) -> _Cell:
    results = [hessdiag.trace(H, method=method, rtol=RTOL, max_matvecs=PRODUCTS, seed=seed) for seed in range(seeds)]
    errors = np.array([result.value for result in results]) - H.trace
    slack = EXACT * abs(H.trace)
    held = [result.interval[0] - slack <= H.trace <= result.interval[1] + slack for result in results]
    widths = [result.interval[1] - result.interval[0] for result in results]
    error = float(np.sqrt(np.mean(errors**2)))
    return _Cell(
        network=name,
        method=method,
        coverage=float(np.mean(held)),
        width=float(np.median(widths)) / (2 * NORMAL * error) if error > 0 else 0.0,
        error=error / abs(H.trace),
        products=float(np.mean([result.cost.hvp for result in results])),
    )


def _targets(cells: list[_Cell]) -> list[Target]:
    least = min(cells, key=lambda cell: cell.coverage)
    widest = max((cell for cell in cells if not cell.exact), key=lambda cell: cell.width)
    return [
        Target(
            f"least coverage ({least.method} on {least.network})",
            least.coverage,
            COVERAGE,
            because="its samples are few and skewed there",
        ),
        Target(
            f"widest interval over the ideal ({widest.method} on {widest.network})",
            widest.width,
            WIDTH,
            at_least=False,
            because="few samples need a wide quantile, and to look at the interval on the way has its price",
        ),
    ]
