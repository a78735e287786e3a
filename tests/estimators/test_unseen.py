"""Bounds on what a Lanczos sequence has not seen: they hold as often as they say, and they are close."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from spectra import Diagonal, network_like, uniform

from hessdiag.estimators.eigenvalues import eigenvalues
from hessdiag.estimators.krylov import KrylovBasis
from hessdiag.estimators.unseen import Sequence

SPECTRA: dict[str, list[float]] = {
    "outlier above a cluster": [1.01] + [1.0] * 10 + uniform(189, 0, 0.9),
    "plus and minus one": [1.0] + [-1.0] * 99,
    "decay": [1 / k for k in range(1, 201)],
    "network": network_like(300).tolist(),
    "one outlier": [1.0] + [0.0] * 299,
    "semicircle": np.sort(np.cos(np.linspace(0.01, math.pi - 0.01, 200))).tolist(),
}


def sequence(values: np.ndarray, steps: int, seed: int) -> Sequence:
    basis = KrylovBasis(len(values), torch.float64, torch.device("cpu"))
    basis.start(torch.randn(len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    diagonal = torch.from_numpy(values)
    for _ in range(steps):
        basis.absorb(diagonal * basis.candidate())
        if basis.exhausted:
            break
    assert basis.sequence is not None
    return basis.sequence


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("name", SPECTRA)
def test_they_hold_as_often_as_they_say(name: str, steps: int) -> None:
    values, doubt, runs = np.array(SPECTRA[name]), 0.1, 150
    below = above = 0
    for seed in range(runs):
        found = sequence(values, steps, seed)
        above += found.upper(doubt) < values.max()
        below += found.lower(doubt) > values.min()
    most = stats.binom.ppf(1 - 1e-4, runs, doubt)  # three and a half standard deviations
    assert above <= most
    assert below <= most


def test_they_are_not_idle() -> None:
    # With one outlier of multiplicity one after one step the bound is wrong just where the start misses it.
    values = np.array([1.0] + [0.0] * 299)
    missed = sum(sequence(values, 1, seed).upper(0.2) < 1 for seed in range(400))
    assert missed == pytest.approx(80, abs=4 * math.sqrt(400 * 0.2 * 0.8))


def test_closer_with_each_step_down_to_rounding() -> None:
    values = network_like(2000).numpy()
    uppers = [sequence(values, steps, 0).upper(0.01) for steps in (2, 4, 8, 12, 16, 30)]
    assert uppers == sorted(uppers, reverse=True)
    assert uppers[3] - 20 < 1e-3 * 20
    assert 0 <= uppers[-1] - 20 < 1e-12 * 20


def test_sharper_than_the_bound_from_order_and_steps_alone() -> None:
    values, steps, doubt = network_like(500).numpy(), 12, 0.01
    found = sequence(values, steps, 0)
    epsilon = (math.log(1.648 * math.sqrt(500) / doubt) / (2 * steps - 1)) ** 2  # Kuczynski, Wozniakowski 1992
    assert 1e4 * (found.upper(doubt) - values.max()) < epsilon * (values.max() - values.min())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_scales(scale: float) -> None:
    values = network_like(200).numpy()
    assert sequence(scale * values, 6, 0).upper(0.01) == pytest.approx(scale * sequence(values, 6, 0).upper(0.01))


@pytest.mark.parametrize("value", [0.0, -3.0, 2.0])
def test_an_invariant_subspace_from_a_random_start_is_all_there_is(value: float) -> None:
    found = sequence(np.full(50, value), 5, 0)
    assert found.lower(0.01) == pytest.approx(value, abs=1e-12)
    assert found.upper(0.01) == pytest.approx(value, abs=1e-12)


def test_order_one() -> None:
    found = sequence(np.array([4.0]), 1, 0)
    assert (found.lower(0.01), found.upper(0.01)) == (pytest.approx(4), pytest.approx(4))


@pytest.mark.parametrize("name", SPECTRA)
def test_eigenvalues_report_them(name: str) -> None:
    values = torch.tensor(SPECTRA[name], dtype=torch.float64)
    runs = [eigenvalues(Diagonal(values), top=2, bottom=0, seed=seed, max_matvecs=60).bounds for seed in range(20)]
    outside = 0
    for bounds in runs:
        assert bounds is not None
        assert bounds.confidence == 0.99
        outside += bounds.upper < float(values.max()) - 1e-12 or bounds.lower > float(values.min()) + 1e-12
    assert outside <= 2


def test_power_has_none() -> None:
    assert eigenvalues(Diagonal(network_like(200)), top=1, bottom=0, method="power").bounds is None
