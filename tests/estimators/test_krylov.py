"""The basis stays orthogonal and free of ghosts where plain Lanczos does not; start directions join safely."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra import rotated, uniform
from torch import Tensor

from hessdiag.estimators.krylov import KrylovBasis

OUTLIERS = [1000.0, 500.0, 100.0, *uniform(397, 0, 1)]


def grown(A: Tensor, steps: int, seed: int = 0) -> KrylovBasis:
    basis = KrylovBasis(len(A), A.dtype, A.device)
    basis.start(torch.randn(len(A), generator=torch.Generator().manual_seed(seed), dtype=A.dtype))
    for _ in range(steps):
        if basis.exhausted:
            break
        basis.absorb(A @ basis.candidate())
    return basis


def plain_lanczos(A: Tensor, steps: int) -> tuple[Tensor, np.ndarray]:
    """The three-term recursion of the textbooks: vectors (steps, n) and Ritz values."""
    v = torch.randn(len(A), generator=torch.Generator().manual_seed(0), dtype=A.dtype)
    v = v / v.norm()
    vectors, alphas, betas, before = [], [], [0.0], torch.zeros_like(v)
    for _ in range(steps):
        vectors.append(v)
        w = A @ v - betas[-1] * before
        alphas.append(float(w @ v))
        w = w - alphas[-1] * v
        before, v = v, w / w.norm()
        betas.append(float(w.norm()))
    T = np.diag(alphas) + np.diag(betas[1:-1], 1) + np.diag(betas[1:-1], -1)
    return torch.stack(vectors), np.linalg.eigvalsh(T)


def test_no_ghosts_after_200_steps_in_float32() -> None:
    A = rotated(OUTLIERS).float()
    basis = grown(A, 200)
    gram = basis.vectors @ basis.vectors.T
    assert basis.size == 200
    assert float((gram - torch.eye(200)).abs().max()) < 1e-5
    values = basis.ritz().values
    for outlier in (1000.0, 500.0, 100.0):
        assert np.sum(np.abs(values - outlier) < 1) == 1
    assert np.sum(values > 2) == 3


def test_the_same_spectrum_does_break_plain_lanczos() -> None:
    vectors, values = plain_lanczos(rotated(OUTLIERS).float(), 200)
    assert float((vectors @ vectors.T - torch.eye(200)).abs().max()) > 0.1
    assert np.sum(np.abs(values - 1000) < 1) > 1
    assert np.sum(values > 2) > 3


def test_the_projected_matrix_is_the_operator_on_the_basis() -> None:
    A = rotated(uniform(60, -1, 1))
    basis = grown(A, 25)
    assert np.allclose(basis.projected, (basis.vectors @ A @ basis.vectors.T).numpy(), atol=1e-12)
    off = np.abs(np.subtract.outer(np.arange(25), np.arange(25))) > 1
    assert np.abs(basis.projected[off]).max() < 1e-12  # tridiagonal from one start


@pytest.mark.parametrize("starts", [1, 2, 4])
def test_residual_bounds_hold(starts: int) -> None:
    A = rotated(uniform(60, -1, 1))
    basis = grown(A, 8)
    for number in range(1, starts):
        basis.start(torch.randn(60, generator=torch.Generator().manual_seed(number), dtype=A.dtype))
        for _ in range(6):
            basis.absorb(A @ basis.candidate())
    ritz = basis.ritz()
    Y = basis.expand(ritz.coordinates)
    true = torch.linalg.vector_norm(A @ Y - Y * torch.from_numpy(ritz.values), dim=0).numpy()
    assert np.all(true <= ritz.residuals + 1e-12)
    if starts == 1:
        assert np.allclose(true, ritz.residuals, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_direction_that_another_one_takes_whole_is_dropped(rank: int, dtype: torch.dtype) -> None:
    # Both directions are pending; the second one's product brings the basis the rest of the range, and the
    # first one's remainder with it: scaled up it would be noise, or NaN.
    A = torch.zeros(12, 12, dtype=dtype)
    A[:rank, :rank] = torch.diag(torch.arange(1.0, rank + 1)).to(dtype)
    basis = KrylovBasis(12, dtype, A.device)
    basis.start(torch.ones(12, dtype=dtype))
    basis.absorb(A @ basis.candidate())
    basis.start(torch.arange(12, dtype=dtype))
    while not basis.exhausted:
        basis.absorb(A @ basis.candidate())
    assert basis.size <= rank + 2
    assert float((basis.vectors @ basis.vectors.T - torch.eye(basis.size, dtype=dtype)).abs().max()) < 1e-5


@pytest.mark.parametrize(("values", "size"), [([1.0] * 50 + [-1.0] * 50, 2), ([0.0] * 9, 1), ([3.0] * 40, 1)], ids=str)
def test_an_invariant_subspace_is_recognised_in_a_dense_matrix(values: list[float], size: int) -> None:
    assert grown(rotated(values), len(values)).size == size


def test_the_whole_space() -> None:
    A = rotated(uniform(30, -1, 1))
    basis = grown(A, 100)
    assert basis.size == 30
    assert basis.exhausted
    assert np.allclose(basis.ritz().values, torch.linalg.eigvalsh(A).numpy(), atol=1e-12)


def test_a_shrunk_basis_grows_on_as_a_krylov_space() -> None:
    A = rotated(uniform(60, -1, 1))
    basis = grown(A, 20)
    ritz, places = basis.ritz(), np.array([0, 1, 17, 18, 19])
    basis.shrink(ritz, places)
    assert (basis.size, basis.waiting, basis.sequence) == (5, 1, None)
    assert np.allclose(basis.ritz().values, ritz.values[places], atol=1e-13)
    assert np.allclose(basis.ritz().residuals, ritz.residuals[places], atol=1e-13)
    for _ in range(15):
        basis.absorb(A @ basis.candidate())
    V = basis.vectors
    assert float((V @ V.T - torch.eye(20, dtype=A.dtype)).abs().max()) < 1e-12
    assert np.allclose(basis.projected, (V @ A @ V.T).numpy(), atol=1e-12)
    now, Y = basis.ritz(), basis.expand(basis.ritz().coordinates)
    true = torch.linalg.vector_norm(A @ Y - Y * torch.from_numpy(now.values), dim=0).numpy()
    assert np.allclose(true, now.residuals, atol=1e-12)
    assert now.values[-1] >= ritz.values[-1] - 1e-13


@pytest.mark.parametrize("forgotten", [False, True])
def test_no_eigenvalue_exceeds_the_bordered_matrix(forgotten: bool) -> None:
    A = rotated([9.0, 7.0, *uniform(58, -1, 1)])
    basis = grown(A, 6)
    basis.start(torch.randn(60, generator=torch.Generator().manual_seed(5), dtype=A.dtype))
    for _ in range(3):
        basis.absorb(A @ basis.candidate())
    if forgotten:
        basis.forget()
        assert basis.waiting == 1
    V, truth = basis.vectors, torch.linalg.eigvalsh(A).numpy()
    Q = torch.linalg.qr(torch.cat([V, torch.eye(60, dtype=A.dtype)]).T, mode="complete")[0][:, 9:]
    outside = torch.linalg.eigvalsh(Q.T @ A @ Q)  # of H on the complement of the basis
    above = np.maximum(basis.bordered(float(outside[-1])), float(outside[-1]))
    below = np.minimum(basis.bordered(float(outside[0])), float(outside[0]))
    assert np.all(above[::-1] >= truth[::-1][: len(above)] - 1e-12)
    assert np.all(below <= truth[: len(below)] + 1e-12)
    assert above[-1] - 9 < 1e-2


def test_cut_back_undoes_what_came_after() -> None:
    A = rotated(uniform(60, -1, 1))
    basis, alone = grown(A, 10), grown(A, 10)
    for number in (1, 2):
        basis.start(torch.randn(60, generator=torch.Generator().manual_seed(number), dtype=A.dtype))
        for _ in range(4):
            basis.absorb(A @ basis.candidate())
    basis.cut_back(10)
    assert (basis.size, basis.waiting) == (10, 1)
    for _ in range(8):
        basis.absorb(A @ basis.candidate())
        alone.absorb(A @ alone.candidate())
    assert np.allclose(basis.projected, alone.projected, atol=1e-11)
