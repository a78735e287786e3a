"""XTrace's small matrices against its definition, and what a sketch and a known subspace must keep to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra import rotated, uniform
from torch import Tensor

from hessdiag.curvature import DenseOperator
from hessdiag.curvature.requests import Products
from hessdiag.errors import UsageError
from hessdiag.estimators.known_subspace import KnownSubspace
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.sketch import Sketch
from hessdiag.problem import Group

D = torch.float64
MATRICES = {
    "flat": rotated(uniform(30, -1, 2)),
    "decaying": rotated([0.5**k for k in range(30)]),
    "rank 5": rotated([3.0, 2.0, 1.0, -1.0, 2.0] + [0.0] * 25),
    "rank 7": rotated([3.0, 2.0, 1.0, -1.0, 2.0, 0.5, 0.2] + [0.0] * 23),
    "of order 8": rotated(uniform(8, -1, 2)),
    "of order 5": rotated(uniform(5, -1, 2)),
    "one block": torch.block_diag(rotated([1.0, 2, 3]), torch.zeros(20, 20, dtype=D)),
}


def sketch_of(A: Tensor, *counts: int, groups: list[Group] | None = None) -> Sketch:
    H = DenseOperator(A, groups)
    sketch = Sketch(H, seed=3)
    for count in counts:
        steps = sketch.grow(count)
        answer = None
        try:
            while True:
                request = steps.send(answer)
                assert isinstance(request, Products)
                answer = H.matmat(request.V)
        except StopIteration:
            pass
    assert sketch.spent == H.meter.read().hvp
    return sketch


def vectors_of(n: int, count: int) -> Tensor:
    draw = Probes(n, seed=3, stream=Stream.SKETCH, distribution="gaussian", dtype=D)
    return torch.stack([draw(i) for i in range(count)], 1)


def range_of(Y: Tensor) -> Tensor:
    U, sizes, _ = torch.linalg.svd(Y, full_matrices=False)
    return U[:, sizes > 1e-12 * max(float(sizes.max()), 1e-300)]


def by_definition(A: Tensor, omega: Tensor) -> np.ndarray:
    """t_i from the range of A Omega without column i."""
    estimates = []
    for i in range(omega.shape[1]):
        others = [j for j in range(omega.shape[1]) if j != i]
        Q = range_of(A @ omega[:, others])
        w = omega[:, i] - Q @ (Q.T @ omega[:, i])
        free = len(A) - Q.shape[1]
        rest = free / float(w @ w) * float(w @ A @ w) if free else 0.0
        estimates.append(float(torch.trace(Q.T @ A @ Q)) + rest)
    return np.array(estimates)


@pytest.mark.parametrize("name", MATRICES)
def test_the_estimates_are_those_of_the_definition(name: str) -> None:
    A = MATRICES[name]
    omega = vectors_of(len(A), 6)
    small = sketch_of(A, 6).matrices
    np.testing.assert_allclose(small.estimates, by_definition(A, omega), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", MATRICES)
def test_the_jackknife_is_that_of_the_definition(name: str) -> None:
    A = MATRICES[name]
    omega = vectors_of(len(A), 6)
    means = np.array([by_definition(A, omega[:, [j for j in range(6) if j != i]]).mean() for i in range(6)])
    expected = np.sqrt(5 / 6 * ((means - means.mean()) ** 2).sum())
    assert sketch_of(A, 6).matrices.jackknife == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", MATRICES)
def test_growing_loses_nothing(name: str) -> None:
    at_once, by_and_by = sketch_of(MATRICES[name], 9), sketch_of(MATRICES[name], 4, 2, 3)
    np.testing.assert_allclose(at_once.matrices.estimates, by_and_by.matrices.estimates, rtol=1e-8, atol=1e-9)
    assert at_once.known.size == by_and_by.known.size == int(torch.linalg.matrix_rank(MATRICES[name]).clamp(max=9))


@pytest.mark.parametrize("name", MATRICES)
def test_groups_add_up(name: str) -> None:
    A = MATRICES[name]
    sketch = sketch_of(A, 5, groups=[Group("a", 2), Group("b", len(A) - 2)])
    np.testing.assert_allclose(sketch.by_group().sum(1), sketch.matrices.estimates, rtol=1e-8, atol=1e-10)


def test_what_is_left_of_the_norm() -> None:
    A = MATRICES["flat"]
    generator = torch.Generator().manual_seed(0)
    omega = torch.randn(30, 4, generator=generator, dtype=D)
    Q = range_of(A @ omega)
    left = A - Q @ (Q.T @ A)
    left = left - (left @ Q) @ Q.T
    whole, rest = [], []
    for seed in range(100):
        H = DenseOperator(A)
        sketch = Sketch(H, seed)
        steps, answer = sketch.grow(5), None
        try:
            while True:
                answer = H.matmat(steps.send(answer).V)  # type: ignore[union-attr]
        except StopIteration:
            pass
        whole.append(sketch.matrices.frobenius)
        rest.append(sketch.matrices.frobenius_left)
    assert np.mean(whole) == pytest.approx(float((A**2).sum()), abs=4 * np.std(whole) / 100**0.5)
    assert np.mean(rest) == pytest.approx(float((left**2).sum()), rel=0.1)  # of one range; it varies little here


def test_float32_products_orthogonalised_in_float64() -> None:
    A = MATRICES["decaying"]
    exact, rounded = sketch_of(A, 8, 4, 6), sketch_of(A.float(), 8, 4, 6)
    assert rounded.matrices.estimates.mean() == pytest.approx(exact.matrices.estimates.mean(), abs=1e-5)
    Q = rounded.known.combined(torch.eye(rounded.known.size, dtype=D))
    torch.testing.assert_close(Q @ Q.T, torch.eye(len(Q), dtype=D), rtol=0, atol=3e-7)


def test_any_vectors_are_made_orthonormal_with_their_products() -> None:
    A = MATRICES["flat"]
    generator = torch.Generator().manual_seed(0)
    V = torch.randn(30, 4, generator=generator, dtype=D)
    V = torch.cat([V, V[:, :1]], 1)  # one twice
    H = DenseOperator(A, [Group("a", 7), Group("b", 23)])
    known = KnownSubspace.of(H, V, A @ V)
    Q = range_of(V)
    assert known.size == 4
    parts = torch.split((Q * (A @ Q)).sum(1), [7, 23])
    torch.testing.assert_close(known.trace_by_group(), torch.stack([part.sum() for part in parts]))
    deflated = known.deflated(lambda probe, batch: torch.ones(30, dtype=D))(0, None)
    torch.testing.assert_close(deflated, torch.ones(30, dtype=D) - Q @ Q.sum(0))


@pytest.mark.parametrize("shapes", [((30,), (30,)), ((29, 2), (29, 2)), ((30, 2), (30, 3))])
def test_a_basis_of_the_wrong_shape(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match=r"basis: found vectors of shape"):
        KnownSubspace.of(DenseOperator(MATRICES["flat"]), torch.zeros(shapes[0]), torch.zeros(shapes[1]))
