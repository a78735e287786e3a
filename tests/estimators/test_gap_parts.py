"""What the noise gap is made of: kinks against their closed form, none in smooth networks, errors that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.closed_forms import two_layer_kink_gain

import hessdiag
from hessdiag.cost import Cost
from hessdiag.estimators.gap_draws import GapDraws, pooled
from hessdiag.estimators.gap_fit import gap_fit
from hessdiag.problem import Problem
from hessdiag.results import TraceResult

FIXTURES = Path(__file__).parents[2] / "fixtures"
DIGITS_TRACE = 3.329727612784  # fixtures/README.md


def known_trace(value: float) -> TraceResult:
    return TraceResult(value, 0.0, (value, value), 0.95, "exact", 1, 0, True, 0.0, (), 0, Cost())


@pytest.fixture(scope="module")
def digits() -> Problem:
    return hessdiag.load(FIXTURES / "digits/audit.yaml", dtype="float64")


def test_the_remainder_of_two_layers_is_what_their_kinks_gain(digits: Problem) -> None:
    sigmas = [1e-3, 2e-3, 3e-3]  # above, higher orders show too
    table = hessdiag.noise_gap(digits, sigmas=sigmas, draws=16, rtol=None, trace=known_trace(DIGITS_TRACE))
    batches = list(digits.batches())
    for row in table.rows:
        sums = [
            two_layer_kink_gain(digits.model.fc1, digits.model.fc2, b.inputs, b.targets, row.sigma) * len(b.inputs)  # type: ignore[arg-type]
            for b in batches
        ]
        truth = float(sum(sums)) / digits.examples / row.predicted
        assert row.relative_deviation is not None
        assert row.relative_deviation_stderr is not None
        assert truth > 0.1
        assert abs(row.relative_deviation - truth) < 0.005 + 4 * row.relative_deviation_stderr


def test_a_rectifier_network_has_kinks(digits: Problem) -> None:
    table = hessdiag.noise_gap(digits, sigmas=[0.02, 0.025, 0.03], draws=16, trace=known_trace(DIGITS_TRACE))
    assert table.fit is not None
    assert table.fit.hessian.value == pytest.approx(DIGITS_TRACE / 2)
    assert table.fit.kinks.value > 4 * table.fit.kinks.stderr
    whole = sum(part.value for part in (table.fit.hessian, table.fit.kinks, table.fit.higher_order))
    last = table.rows[-1]
    assert whole == pytest.approx(last.gap / last.sigma**2, rel=0.01)


def test_a_smooth_network_has_none() -> None:
    problem = hessdiag.load(FIXTURES / "gpt/audit.yaml", overrides=["data.max_examples=24", "data.batch_size=8"])
    table = hessdiag.noise_gap(problem, sigmas=[0.002, 0.004, 0.008], draws=8, trace=known_trace(800.0))
    assert table.fit is not None
    assert abs(table.fit.kinks.value) < 3 * table.fit.kinks.stderr
    assert table.fit.kinks.stderr < 0.01 * table.fit.hessian.value


def drawn(kinks: float, higher: float, bend: float, seed: int) -> GapDraws:
    """Draws whose remainder over sigma^2 is kinks + higher x + bend x^2 in the mean, x = (sigma/0.04)^2."""
    generator = np.random.default_rng(seed)
    sigmas = np.array([0.01, 0.02, 0.03, 0.04])
    x = (sigmas / 0.04) ** 2
    forms = generator.chisquare(5, (32, 4))
    parts = (generator.normal(mean / 4, 0.05, (32, 1, 4)) for mean in (kinks, higher, bend))
    slopes = sum(part * x[:, None] ** power for power, part in enumerate(parts))
    gaps = sigmas[:, None] ** 2 * (slopes + forms[:, None] / 2)
    return GapDraws(tuple(sigmas), "two-sided", "gaussian", "per-batch", gaps, forms, 0.0, True, 0)


def test_the_parts_lie_within_their_errors() -> None:
    off = []
    for seed in range(200):
        fit = gap_fit(drawn(0.3, 0.5, 0.0, seed), known_trace(2.0))
        assert fit is not None
        off.append(
            ((fit.kinks.value - 0.3) / fit.kinks.stderr, (fit.higher_order.value - 0.5) / fit.higher_order.stderr)
        )
    within = (np.abs(off) < 2).mean(0)
    assert (within > 0.93).all()


def test_a_bend_widens_the_errors() -> None:
    straight, bent = (gap_fit(drawn(0.0, 0.5, bend, 0), known_trace(2.0)) for bend in (0.0, 2.0))
    assert straight is not None
    assert bent is not None
    assert abs(bent.kinks.value) < 2 * bent.kinks.stderr
    assert bent.kinks.stderr > 3 * straight.kinks.stderr


def test_variances_add_up_over_batches() -> None:
    generator = np.random.default_rng(0)
    scales = np.array([1.0, 1.0, 3.0])
    samples = [pooled(generator.normal(2.0, scales, (8, 3))) for _ in range(2000)]
    assert np.mean([one.stderr**2 for one in samples]) == pytest.approx(11 / 8, rel=0.05)
    assert np.var([one.mean for one in samples]) == pytest.approx(11 / 8, rel=0.1)
    # Of a chi-square variable with d degrees the relative variance is 2/d.
    spread = np.var([one.stderr**2 for one in samples]) / (11 / 8) ** 2
    assert 2 / spread == pytest.approx(7 * 121 / 83, rel=0.15)
    assert 7 < np.mean([one.degrees for one in samples]) < 21
