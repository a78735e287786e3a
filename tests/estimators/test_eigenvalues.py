"""Lanczos and power iteration against dense eigenvalues, on the spectra that break such methods."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from spectra import Diagonal, assert_right, network_like, rotated, uniform
from torch import Tensor

from hessdiag.curvature import DenseOperator
from hessdiag.curvature.requests import Products, Request, Served
from hessdiag.errors import UsageError
from hessdiag.estimators.eigenvalues import eigenvalue_steps, eigenvalues
from hessdiag.estimators.steps import run_together
from hessdiag.results import EigenvaluesResult

BULK = uniform(190, 0, 0.5)

SPECTRA: dict[str, list[float]] = {
    "plus and minus one": [1.0] * 30 + [-1.0] * 30,
    "five both signs": [5.0, 5.0, -5.0, -5.0, *uniform(56, 0, 1)],
    "cluster at one": [1 + 1e-6 * k for k in range(10)] + BULK,
    "multiplicities": [3.0] * 5 + [2.0] * 4 + [-1.0] * 3 + uniform(60, 0, 1),
    "double at the fifth place": [10.0, 9.0, 8.0, 1.2, 1.2, 1.1, *uniform(300, 0, 1)],
    "triple at the fourth place": [10.0, 9.0, 8.0, 7.0, 7.0, 7.0, *uniform(100, 0, 2)],
    "rank one": [7.0] + [0.0] * 49,
    "rank two, negative": [-7.0, -3.0] + [0.0] * 48,
    "zeros": [0.0] * 20,
    "identity": [1.0] * 20,
    "negative definite": [-1 - 0.1 * k for k in range(40)],
    "one of each sign": [1.0, -1.0],
    "one": [-2.5],
    "zero of order one": [0.0],
    "decay": [1 / k for k in range(1, 101)],
    "huge": [1e8 * v for v in uniform(50, -1, 1)],
    "tiny": [1e-8 * v for v in uniform(50, -1, 1)],
    "mixed scales": [1e8, 1e4, 1.0, 1e-4, -1e-8, -1e4],
    "network": network_like(300).tolist(),
}


def clipped(n: int, top: int, bottom: int) -> tuple[int, int]:
    top = min(top, n)
    return top, min(bottom, n - top)


@pytest.mark.parametrize("ends", [(5, 0), (0, 3), (5, 1), (4, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_lanczos_finds_the_ends(name: str, dtype: torch.dtype, ends: tuple[int, int]) -> None:
    A = rotated(SPECTRA[name]).to(dtype)
    top, bottom = clipped(len(A), *ends)
    if top + bottom == 0:
        top = 1
    result = eigenvalues(DenseOperator(A), top=top, bottom=bottom, max_matvecs=600)
    assert result.converged
    assert (len(result.largest), len(result.smallest)) == (top, bottom)
    assert_right(result, A, 1e-3)


@pytest.mark.parametrize("name", [name for name, values in SPECTRA.items() if len(values) <= 60])
def test_all_n_of_them(name: str) -> None:
    A = rotated(SPECTRA[name])
    n = len(A)
    result = eigenvalues(DenseOperator(A), top=n - n // 2, bottom=n // 2, rtol=1e-6)
    truth = torch.linalg.eigvalsh(A)
    found = torch.tensor(sorted(pair.value for pair in (*result.largest, *result.smallest)), dtype=torch.float64)
    assert result.converged
    assert torch.allclose(found, truth, rtol=0, atol=1e-12 * float(truth.abs().max()))


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0, -4.0], [0.0] * 6, [2.0] * 6, [-3.0]], ids=str)
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_diagonal_matrices(values: list[float], method: str) -> None:
    A = torch.diag(torch.tensor(values, dtype=torch.float64))
    result = eigenvalues(DenseOperator(A), top=1, bottom=0, method=method, rtol=1e-6)
    assert result.converged
    assert_right(result, A, 1e-6)


POWER_SPECTRA: dict[str, list[float]] = {
    "plus and minus one": [1.0] * 30 + [-1.0] * 30,
    "five both signs": [5.0, 5.0, 4.0, 3.0, -4.0, -5.0, *uniform(54, -1, 1)],
    "outliers, positive": [40.0, 20.0, 10.0, 5.0, 2.5, *uniform(55, 0, 0.5)],
    "the wanted end is the smaller one": [2.0, 1.0, *uniform(57, -0.2, 0.2), -10.0],
    "multiplicities": [3.0] * 3 + [-2.0] * 2 + uniform(50, -0.5, 0.5),
    "negative definite": [-1.0, -2.0, -4.0, -8.0, -16.0],
    "rank one": [7.0] + [0.0] * 49,
    "zeros": [0.0] * 20,
    "identity": [1.0] * 20,
    "one of each sign": [1.0, -1.0],
    "one": [-2.5],
    "huge": [4e8, 2e8, 1e8, *uniform(30, 0, 1e7), -1e8, -3e8],
    "tiny": [4e-8, 2e-8, 1e-8, *uniform(30, 0, 1e-9), -1e-8, -3e-8],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", POWER_SPECTRA)
def test_power_iteration_finds_the_wanted_end(name: str, dtype: torch.dtype) -> None:
    A = rotated(POWER_SPECTRA[name]).to(dtype)
    top, bottom = clipped(len(A), 2, 2)
    result = eigenvalues(DenseOperator(A), top=top, bottom=bottom, method="power", max_matvecs=5000)
    assert result.converged
    assert_right(result, A, 1e-3)


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_residuals_are_measured_with_a_further_product(method: str) -> None:
    seen: list[Tensor] = []

    class Recording(DenseOperator):
        def serve(self, requests: Sequence[Request]) -> list[Served]:
            seen.extend(request.V.clone() for request in requests if isinstance(request, Products))
            return super().serve(requests)

    A = rotated(network_like(200))
    result = eigenvalues(Recording(A), top=3, bottom=1, method=method, rtol=1e-2, max_matvecs=300)
    V = seen[-1]  # the last block of products is the confirmation
    assert V.shape == (200, 4)
    values = (V * (A @ V)).sum(0) / (V * V).sum(0)
    residuals = torch.linalg.vector_norm(A @ V - V * values, dim=0) / torch.linalg.vector_norm(V, dim=0)
    expected = sorted(zip(values.tolist(), residuals.tolist(), strict=True), reverse=True)
    found = [(pair.value, pair.residual_norm) for pair in (*result.largest, *result.smallest)]
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert float((V.T @ V - torch.eye(4)).abs().max()) < 1e-6


@pytest.mark.parametrize("method", ["lanczos", "power"])
@pytest.mark.parametrize("max_matvecs", [4, 5, 9, 17, 40, 100])
def test_products_reported_are_products_made(method: str, max_matvecs: int) -> None:
    H = DenseOperator(rotated(uniform(80, -1, 1)))
    result = eigenvalues(H, top=1, bottom=1, method=method, max_matvecs=max_matvecs)
    assert result.matvecs == result.cost.hvp == H.meter.read().hvp <= max_matvecs


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_too_small_a_budget_is_said(method: str) -> None:
    H = DenseOperator(rotated(uniform(200, -1, 1)))
    result = eigenvalues(H, top=5, bottom=1, method=method, rtol=1e-6, max_matvecs=20)
    assert not result.converged
    assert max(pair.residual_norm for pair in result.largest) > 1e-6
    assert len(result.largest) == 5


def random_spectrum(seed: int) -> Tensor:
    """Bulk and outliers, sometimes repeated or nearly so, of random shape and scale."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 160))
    bulk = rng.uniform(-rng.uniform(), 1, n) ** int(rng.choice([1, 2, 3]))
    outliers = rng.exponential(3, int(rng.integers(0, min(8, n))))
    bulk[: len(outliers)] = outliers
    for _ in range(int(rng.integers(0, 4))):
        source, target = rng.integers(0, n, 2)
        bulk[target] = bulk[source] + float(rng.choice([0, 1e-6, 1e-3]))
    return torch.from_numpy(bulk * rng.choice([-1, 1]) * 10 ** rng.uniform(-6, 6))


@pytest.mark.parametrize("seed", range(60))
def test_converged_is_never_said_falsely(seed: int) -> None:
    values = random_spectrum(seed)
    A = rotated(values, seed)
    rng = np.random.default_rng(seed)
    top, bottom = clipped(len(A), int(rng.integers(1, 6)), int(rng.integers(0, 4)))
    rtol = float(rng.choice([1e-2, 1e-3, 1e-5]))
    result = eigenvalues(DenseOperator(A), top=top, bottom=bottom, rtol=rtol, max_matvecs=300, seed=seed)
    if result.converged:
        assert_right(result, A, rtol)
    else:  # a budget of 300 is more than any of these orders
        raise AssertionError(result)


def test_typical_cost() -> None:
    costs = {
        count: np.mean(
            [eigenvalues(Diagonal(network_like(2000)), top=count, bottom=0, seed=s).matvecs for s in range(5)]
        )
        for count in (1, 5)
    }
    assert costs[1] <= 14  # six to find it, as many until nothing larger is likely, one to confirm it
    assert costs[5] <= 24


def test_an_exhausted_direction_needs_no_patience() -> None:
    result = eigenvalues(Diagonal(torch.cat([torch.ones(500), -torch.ones(500)]).double()), top=5, bottom=3)
    assert result.converged
    assert [pair.value for pair in result.largest] == pytest.approx([1.0] * 5)
    assert [pair.value for pair in result.smallest] == pytest.approx([-1.0] * 3)
    assert result.matvecs <= 2 * 6 + 8


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_a_seed_is_a_measurement(method: str) -> None:
    def measured(seed: int) -> EigenvaluesResult:
        return eigenvalues(DenseOperator(rotated(network_like(150))), method=method, max_matvecs=100, seed=seed)

    assert measured(3).largest == measured(3).largest
    assert measured(3).largest != measured(4).largest


@pytest.mark.parametrize(
    ("request_", "found", "expected"),
    [
        ({"top": 4, "bottom": 3}, "top 4 and bottom 3", "6 eigenvalues"),
        ({"top": -1, "bottom": 2}, "top -1", "at least one"),
        ({"top": 0, "bottom": 0}, "top 0 and bottom 0", "at least one"),
        ({"method": "arnoldi"}, "'arnoldi'", "lanczos, power"),
        ({"top": 3, "bottom": 1, "max_matvecs": 7}, "found 7", "at least 8"),
    ],
    ids=str,
)
def test_bad_requests(request_: dict[str, object], found: str, expected: str) -> None:
    H = DenseOperator(torch.eye(6))
    with pytest.raises(UsageError) as caught:
        eigenvalues(H, **request_)  # type: ignore[arg-type]
    assert found in str(caught.value)
    assert expected in str(caught.value)
    assert H.meter.read().hvp == 0


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_out_of_time_it_confirms_what_it_has(method: str) -> None:
    H = DenseOperator(rotated(network_like(150)))
    steps = eigenvalue_steps(H, top=2, bottom=1, method=method)
    found = run_together(H, {"eigenvalues": steps}, deadline=time.perf_counter() - 1)["eigenvalues"]
    assert not found.converged
    assert found.matvecs == found.cost.hvp < 60
    assert len(found.largest) == 2
    assert found.largest[0].residual_norm > 0
    if found.bounds is not None:
        assert found.bounds.lower < -0.01 < 20 < found.bounds.upper
