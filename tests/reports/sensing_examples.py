"""Simulations as `nso sensing` makes them, for the golden files."""

import math

from hessdiag.cost import Cost
from hessdiag.results import Eigenpair, EigenvaluesResult, TraceResult
from hessdiag.simulation import SENSING_METHODS, Sensing, SensingMethod, SensingRun, SensingSettings

STEPS = tuple(range(0, 3001, 15))


def method(name: str, level: float, sharpness: float) -> SensingMethod:
    """A loss that falls from 1e4 to ``level`` and somewhat more."""
    losses = tuple(1e4 / (1 + step) ** 1.5 + level * (1 + 100 / (100 + step)) for step in STEPS)
    last = math.fsum(losses[-20:]) / 20
    trace = TraceResult(
        1.002 * sharpness,
        0.0015 * sharpness,
        (0.99 * sharpness, 1.01 * sharpness),
        0.95,
        "xtrace",
        60,
        144,
        True,
        0.01,
        (),
        0,
        Cost(hvp=144),
    )
    pair = Eigenpair(sharpness / 14, 5e-5 * sharpness)
    eigenvalues = EigenvaluesResult("lanczos", 15, True, 1e-3, (pair,), (), 0, Cost(hvp=15))
    return SensingMethod(
        name,
        3000 * SENSING_METHODS[name],
        tuple(loss / 5 for loss in losses),
        losses,
        last / 5,
        last,
        sharpness,
        sharpness / 14 + 1e-3,
        trace,
        eigenvalues,
    )


def run(seed: int, gd: float = 0.5) -> SensingRun:
    rest = (method("WP-GD", 0.2 + seed / 100, 1419.75 + seed), method("NSO", 0.05 + seed / 100, 1417.22 + seed))
    return SensingRun(seed, STEPS, (method("GD", gd, 1543.44 + 10 * seed), *rest))


ONE = Sensing(SensingSettings(), (run(0),), cost=Cost(gradient=12000, seconds=2.53), version="0.1.0")
SEVERAL = Sensing(
    SensingSettings(lr=0.001), (run(4), run(5, 0.1), run(6)), cost=Cost(gradient=36000, seconds=75.0), version="0.1.0"
)
SENSINGS = {"sensing": ONE, "sensing-several": SEVERAL}
