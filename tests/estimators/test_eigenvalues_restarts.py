"""Lanczos in little memory: the same answers as with all of it, and never more vectors than it may store."""

from __future__ import annotations

import pytest
import torch
from spectra import Diagonal, assert_right, network_like, rotated, uniform

from hessdiag.curvature import DenseOperator
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators import lanczos, room
from hessdiag.estimators.eigenvalues import Subspace, eigenvalue_steps, eigenvalues
from hessdiag.estimators.krylov import KrylovBasis
from hessdiag.estimators.steps import run

SPECTRA: dict[str, list[float]] = {
    "both signs": [5.0, 5.0, -5.0, -5.0, *uniform(56, 0, 1)],
    "cluster at one": [1 + 1e-6 * k for k in range(10)] + uniform(80, 0, 0.5),
    "multiplicities": [3.0] * 5 + [2.0] * 4 + [-1.0] * 3 + uniform(60, 0, 1),
    "decay": [1 / k for k in range(1, 101)],
    "tiny": [1e-8, 0.9e-8, *(1e-8 * v for v in uniform(50, -1, 0.7))],
    "network": network_like(200).tolist(),
}


def bytes_for(vectors: int, A: torch.Tensor) -> int:
    return vectors * len(A) * A.dtype.itemsize


@pytest.mark.parametrize("spare", [4, 12])
@pytest.mark.parametrize("name", SPECTRA)
def test_little_memory_finds_the_same(name: str, spare: int) -> None:
    A = rotated(SPECTRA[name]).to(torch.float32 if spare == 12 else torch.float64)
    top, bottom = 4, 0 if name == "network" else 1
    memory = bytes_for(top + bottom + spare, A)
    result = eigenvalues(DenseOperator(A), top=top, bottom=bottom, max_matvecs=1500, memory=memory)
    assert result.converged
    assert result.restarts > 0
    assert_right(result, A, 1e-3)
    assert result.matvecs == result.cost.hvp


@pytest.mark.parametrize("spare", [4, 7, 20])
def test_never_more_vectors_than_memory_holds(spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Watched(KrylovBasis):
        def absorb(self, product: torch.Tensor) -> None:
            super().absorb(product)
            seen.append(self.size + self.waiting)

    monkeypatch.setattr(lanczos, "KrylovBasis", Watched)
    A = rotated(SPECTRA["multiplicities"])
    eigenvalues(DenseOperator(A), top=3, bottom=1, max_matvecs=200, memory=bytes_for(4 + spare, A))
    assert max(seen) == 4 + spare


def test_too_little_memory_is_said_before_any_product(monkeypatch: pytest.MonkeyPatch) -> None:
    H = Diagonal(network_like(200))
    with pytest.raises(UsageError, match=r"room for 9 vectors of 200 parameters .* expected for 10 .* or allow more"):
        eigenvalues(H, memory=9 * 200 * 8 + 100)
    monkeypatch.setattr(room, "available_memory", lambda device: 2 * 5 * 200 * 8)
    with pytest.raises(MeasurementError, match=r"room for 5 vectors .* or free some"):
        eigenvalues(H)
    assert H.meter.read().hvp == 0


def test_small_problems_need_no_more_than_they_have() -> None:
    A = rotated([3.0, 1.0, -2.0])
    result = eigenvalues(DenseOperator(A), top=2, bottom=1, memory=bytes_for(4, A))
    assert result.converged
    assert_right(result, A, 1e-3)


def test_what_is_left_to_others() -> None:
    A = rotated(network_like(200))
    left = Subspace()
    result = run(DenseOperator(A), eigenvalue_steps(DenseOperator(A), top=3, bottom=1, subspace=left))
    assert left.vectors is not None
    assert left.products is not None
    assert left.started is not None
    torch.testing.assert_close(left.vectors.T @ left.vectors, torch.eye(4, dtype=A.dtype), rtol=0, atol=1e-10)
    torch.testing.assert_close(left.products, A @ left.vectors)
    found = sorted(pair.value for pair in (*result.largest, *result.smallest))
    assert sorted(left.values) == pytest.approx(found)


def test_the_first_sequence_goes_on_as_if_nothing_had_come_between() -> None:
    A = rotated(network_like(200))
    left = Subspace()
    run(DenseOperator(A), eigenvalue_steps(DenseOperator(A), top=3, bottom=1, subspace=left))
    started = left.started
    assert started is not None
    alone = KrylovBasis(200, A.dtype, A.device)
    alone.start(lanczos.krylov_starts(DenseOperator(A), 0)(0))
    while alone.size < 30:
        alone.absorb(A @ alone.candidate())
    assert 5 < started.size < 30
    while started.size < 30:
        started.absorb(A @ started.candidate())
    torch.testing.assert_close(
        torch.from_numpy(started.projected), torch.from_numpy(alone.projected), atol=1e-9, rtol=0
    )
