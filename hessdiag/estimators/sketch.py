"""A random sketch of the operator that grows without wasting a product."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.estimators.known_subspace import KnownSubspace, inner
from hessdiag.estimators.leave_one_out import SketchMatrices
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import Steps

__all__ = ["LEAST_TESTS", "Sketch"]

LEAST_TESTS = 3  # the jackknife leaves out two

_FIRST = 8  # test vectors; fewer tell too little of their spread
_LEAST_GROWTH = 4


class Sketch:
    """Y = H Omega for Gaussian test vectors Omega (n, k), an orthonormal basis Q of its range, and Z = HQ.

    As it grows Q gets further columns and keeps those that it has, so that every product goes on being used.

    Args:
        H: the operator.
        seed: of the test vectors.
    """

    def __init__(self, H: SymmetricOperator, seed: int) -> None:
        self._H = H
        self.known = KnownSubspace(H)
        self.spent = 0  # products
        self.complete = False  # H is known whole: outside the range it is zero
        self._tests = Probes(
            H.n, seed=seed, stream=Stream.SKETCH, distribution="gaussian", device=H.device, dtype=H.dtype
        )
        nothing = np.zeros((0, 0))
        self.matrices = SketchMatrices(H.n, nothing, nothing, nothing, nothing, *[np.zeros(0)] * 3)

    @property
    def size(self) -> int:
        """Test vectors."""
        return self.matrices.size

    def growth(self, budget: int) -> int:
        """How many test vectors to add next, at two products each; 0 where ``budget`` or memory holds no more."""
        wanted = min(max(self.size // 2, _LEAST_GROWTH) if self.size else _FIRST, budget // 2)
        fitting = KnownSubspace.most(self._H, self.size + wanted) - self.size
        return 0 if self.complete else max(min(wanted, fitting), 0)

    def grow(self, count: int, *, vital: bool = False, expect: float = 0.0) -> Steps[None]:
        """Add ``count`` test vectors; an OutOfTime on the way leaves the sketch as it was."""
        tests = torch.stack([self._tests(self.size + place) for place in range(count)])
        Y = (yield Products(tests.T, vital=vital, expect=expect + count)).T
        self.spent += count
        fresh = self.known.new_directions(Y)
        Z = fresh
        if len(fresh):
            Z = (yield Products(fresh.T, vital=vital, expect=expect)).T
            self.spent += len(fresh)
        self.matrices = self._grown(tests, Y, fresh, Z)
        self.known.append(fresh, Z)
        # A random vector whose product adds no direction: the range is all there is.
        self.complete = self.size >= LEAST_TESTS and (len(fresh) < count or self.known.size >= self._H.n)

    def by_group(self) -> np.ndarray:
        """The t_i by parameter group, (k, groups): they fall into groups by the rows of Q, Z and P_i w_i."""
        small = self.matrices
        whole = self.known.trace_by_group().numpy()
        estimates = []
        for i in range(small.size):
            s, u = torch.from_numpy(small.missing[:, [i]]), torch.from_numpy(small.inside[:, [i]])
            lost = self._form(self.known.combined(s), self.known.combined_products(s))
            outside = self._tests(i).double() - self.known.combined(u)[0]
            product = self.known.combined(torch.from_numpy(small.R[:, [i]])) - self.known.combined_products(u)
            estimates.append(whole - lost + small.scales[i] * self._form(outside[None], product))
        return np.array(estimates)

    def _form(self, rows: Tensor, products: Tensor) -> np.ndarray:
        form: np.ndarray = self._H.by_group(rows[0], products[0]).cpu().numpy()
        return form

    def _grown(self, tests: Tensor, Y: Tensor, fresh: Tensor, Z: Tensor) -> SketchMatrices:
        old, known = self.matrices, self.known
        earlier = [_numbers(inner(fresh, self._tests(i)[None])) for i in range(old.size)]
        return SketchMatrices(
            n=self._H.n,
            W=_stacked(old.W, known.coordinates(tests), np.hstack([*earlier, _numbers(inner(fresh, tests))])),
            R=_stacked(
                old.R, known.coordinates(Y), np.hstack([np.zeros((len(fresh), old.size)), _numbers(inner(fresh, Y))])
            ),
            K=_bordered(old.K, known.coordinates(Z), inner(fresh, Z)),
            ZZ=_bordered(old.ZZ, known.product_coordinates(Z), inner(Z, Z)),
            forms=np.append(old.forms, _rowwise(tests, Y)),
            lengths=np.append(old.lengths, _rowwise(tests, tests)),
            squares=np.append(old.squares, _rowwise(Y, Y)),
        )


def _numbers(matrix: Tensor) -> np.ndarray:
    numbers: np.ndarray = matrix.cpu().numpy()
    return numbers


def _stacked(old: np.ndarray, beside: Tensor, below: np.ndarray) -> np.ndarray:
    """[[old, beside], [below]]."""
    return np.vstack([np.hstack([old, _numbers(beside)]), below])


def _bordered(old: np.ndarray, beside: Tensor, corner: Tensor) -> np.ndarray:
    """[[old, beside], [beside^T, corner]], symmetric to the last bit."""
    side, square = _numbers(beside), _numbers(corner)
    return np.block([[old, side], [side.T, (square + square.T) / 2]])


def _rowwise(rows: Tensor, others: Tensor) -> np.ndarray:
    return np.array([float(inner(row[None], other[None])) for row, other in zip(rows, others, strict=True)])
