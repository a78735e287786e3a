"""Stochastic Lanczos quadrature against moments and smoothed dense spectra."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import stats
from spectra import network_like, rotated, uniform

from hessdiag.curvature import DenseOperator
from hessdiag.errors import UsageError
from hessdiag.estimators.density import density_steps, spectral_density
from hessdiag.estimators.eigenvalues import Subspace, eigenvalue_steps
from hessdiag.estimators.steps import run, run_together
from hessdiag.results import DensityResult

SPECTRA = {
    "uniform": uniform(120, -1, 1),
    "two levels": [2.0] * 40 + [-1.0] * 80,
    "decay": [1 / k for k in range(1, 121)],
    "network": network_like(200).tolist(),
}


def integral(result: DensityResult) -> float:
    return float(np.trapezoid(result.density, result.grid))


@pytest.mark.parametrize("name", SPECTRA)
def test_moments_within_standard_errors(name: str) -> None:
    values = np.array(SPECTRA[name])
    n = len(values)
    seeds = [spectral_density(DenseOperator(rotated(values)), steps=20, probes=8, seed=seed) for seed in range(25)]
    for power in (1, 2, 3):
        estimates = [np.dot(r.weights, np.array(r.nodes) ** power) for r in seeds]
        stderr = np.std(estimates, ddof=1) / 5
        truth = np.mean(values**power)
        assert abs(np.mean(estimates) - truth) < 4 * stderr + 1e-12
        # For a unit Gaussian direction the variance is 2 var(lambda^p) / (n + 2), over 8 probes.
        expected = np.sqrt(2 * np.var(values**power) / (n + 2) / 8)
        assert np.std(estimates, ddof=1) == pytest.approx(expected, rel=0.5)


def test_the_quadrature_is_exact_for_its_own_directions() -> None:
    A = rotated(SPECTRA["uniform"])
    wide, narrow = (spectral_density(DenseOperator(A), steps=steps, probes=3, seed=0) for steps in (40, 10))
    for power in range(20):  # ten Gauss nodes integrate polynomials up to degree 19
        a, b = (np.dot(r.weights, np.array(r.nodes) ** power) for r in (wide, narrow))
        assert a == pytest.approx(b, abs=1e-12)


@pytest.mark.parametrize("name", SPECTRA)
def test_against_the_dense_spectrum_smoothed_alike(name: str) -> None:
    values = np.array(SPECTRA[name])
    result = spectral_density(DenseOperator(rotated(values)), steps=60, probes=30, points=2000)
    smoothed = stats.norm.pdf(np.array(result.grid)[:, None], values[None, :], result.bandwidth).mean(1)
    difference = np.trapezoid(np.abs(smoothed - np.array(result.density)), result.grid)
    assert difference < 0.12
    assert integral(result) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "values", [[1.0] * 20, [0.0] * 20, [5.0], [0.0], [-3.0, 4.0], [1e8, -1e8, 0.0], [1e-8, 3e-8]], ids=str
)
def test_degenerate_spectra(values: list[float], dtype: torch.dtype) -> None:
    result = spectral_density(DenseOperator(rotated(values).to(dtype)), steps=80, probes=3)
    assert integral(result) == pytest.approx(1, abs=2e-3)
    assert sum(result.weights) == pytest.approx(1)
    scale = max(abs(v) for v in values) or 1.0
    distances = np.abs(np.subtract.outer(result.nodes, values)).min(1)
    assert distances.max() <= 1e-5 * scale
    assert all(np.isfinite(result.density))


def test_cost_and_seeds() -> None:
    H = DenseOperator(rotated(SPECTRA["uniform"]))
    result = spectral_density(H, steps=10, probes=3)
    assert result.cost.hvp == H.meter.read().hvp == 30
    assert result.nodes == spectral_density(H, steps=10, probes=3).nodes
    assert result.nodes != spectral_density(H, steps=10, probes=3, seed=1).nodes
    assert list(result.nodes) == sorted(result.nodes)
    assert len(result.grid) == len(result.density) == 256


@pytest.mark.parametrize("request_", [{"steps": 1}, {"probes": 0}, {"points": 1}], ids=str)
def test_bad_requests(request_: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected at least 2, 1 and 2"):
        spectral_density(DenseOperator(torch.eye(3)), **request_)


@pytest.mark.parametrize("points", [16, 24, 32, 256])
def test_it_integrates_to_one_on_coarse_grids_too(points: int) -> None:
    matrix = torch.diag(torch.linspace(-1, 3, 60, dtype=torch.float64))
    found = spectral_density(DenseOperator(matrix), steps=80, probes=2, points=points)
    assert sum(found.density) * (found.grid[1] - found.grid[0]) == pytest.approx(1, abs=0.02)
    assert found.steps == 60


def test_in_little_memory_probes_take_turns() -> None:
    H = DenseOperator(rotated(SPECTRA["network"]))
    roomy = spectral_density(H, steps=12, probes=5)
    tight = spectral_density(H, steps=12, probes=5, memory=2 * 13 * 200 * 8)
    assert np.allclose(tight.nodes, roomy.nodes, rtol=0, atol=1e-9)
    assert np.allclose(np.cumsum(tight.weights)[-1], 1)
    assert np.allclose(tight.density, roomy.density, rtol=1e-6, atol=1e-9)
    assert (tight.probes, tight.steps, tight.cost.hvp) == (5, 12, 60)


def test_memory_for_less_than_a_probe_says_what_fits() -> None:
    H = DenseOperator(rotated(SPECTRA["network"]))
    with pytest.raises(UsageError, match=r"lower density\.steps from 12 to at most 8, or allow more"):
        spectral_density(H, steps=12, memory=9 * 200 * 8)
    with pytest.raises(UsageError, match="select fewer parameters"):
        spectral_density(H, steps=12, memory=8)
    assert H.meter.read().hvp == 0


def test_it_goes_on_from_the_eigenvalues_at_their_cost() -> None:
    H = DenseOperator(rotated(SPECTRA["network"]))
    left = Subspace()
    run(H, eigenvalue_steps(H, top=3, bottom=1, subspace=left))
    assert left.started is not None
    saved = left.started.size
    alone, after = (
        spectral_density(H, steps=40, probes=2),
        run(H, density_steps(H, steps=40, probes=2, started=left.started)),
    )
    assert 5 < saved == alone.cost.hvp - after.cost.hvp
    for power in range(1, 20):
        moments = [np.dot(r.weights, (np.array(r.nodes) / 20) ** power) for r in (alone, after)]
        assert moments[0] == pytest.approx(moments[1], abs=1e-12)


def test_out_of_time_it_gives_what_it_has() -> None:
    H = DenseOperator(rotated(SPECTRA["network"]))
    found = run_together(H, {"density": density_steps(H, probes=3)}, deadline=time.perf_counter() - 1)["density"]
    assert (found.steps, found.probes) == (2, 3)
    assert integral(found) == pytest.approx(1, abs=2e-3)
