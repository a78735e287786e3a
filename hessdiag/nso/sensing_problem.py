"""Matrix sensing: a low-rank matrix from random measurements of it, where loss and Hessian have closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from hessdiag.curvature.keyed import keyed_generator
from hessdiag.problem import Problem

__all__ = ["MatrixSensing"]

_STREAM = 103  # of measurements, truth and start; beside those of the training methods
_MATRICES = 256  # that are unpacked at a time


class MatrixSensing:
    """f(W) = 1/(2n) sum_i r_i^2 with r_i = <A_i, W W^T> - y_i and y_i = <A_i, X>, W of shape (d, k).

    X = U U^T and A_i = (G_i + G_i^T)/2; the entries of U (d, rank), of G_i (d, d) and of the start W0 (d, k) are
    independent standard normal. In float64. Methods take W with any leading dimensions and keep them.

    A symmetric matrix is stored as a vector (q,), q = d (d + 1)/2: its upper triangle, with sqrt 2 times what is off
    the diagonal, so that the vectors' inner products are the matrices'. The vector of A_i is then standard normal.

    Args:
        dimension: d.
        rank: of X.
        width: k.
        examples: n.
        seed: of everything that is drawn.

    Attributes:
        start: W0, shape (d, k).
        truth: X, packed (q,).

    Source: arXiv 2306.08553, section 3.1.
    """

    def __init__(self, *, dimension: int, rank: int, width: int, examples: int, seed: int) -> None:
        self.dimension, self.width, self.examples = dimension, width, examples
        self._rows, self._columns = torch.triu_indices(dimension, dimension)
        self._weights = torch.full((len(self._rows),), math.sqrt(2.0), dtype=torch.float64)
        self._weights[self._rows == self._columns] = 1.0
        random = keyed_generator(torch.device("cpu"), seed, _STREAM)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=random)

        factor = normal(dimension, rank)
        self.start = normal(dimension, width)
        self.truth = self._pack(factor @ factor.mT)
        self._measurements = normal(examples, len(self._rows))
        self._targets = self._measurements @ self.truth
        self._traces = self._measurements[:, self._rows == self._columns].sum(1)
        self._mean_square = self._mean_of_squares()

    # -- losses --------------------------------------------------------------------------------------------

    def loss(self, W: Tensor) -> Tensor:
        """f(W)."""
        return self._residuals(W).square().mean(-1) / 2

    def validation_loss(self, W: Tensor) -> Tensor:
        """The expected loss on a fresh measurement, ||W W^T - X||_F^2 / 2; a validation set would be a sample of it."""
        return (self._pack(W @ W.mT) - self.truth).square().sum(-1) / 2

    def gradient(self, W: Tensor) -> Tensor:
        """2 M W with M = 1/n sum_i r_i A_i."""
        return 2 * self._mean_weighted(self._residuals(W)) @ W

    # -- curvature -----------------------------------------------------------------------------------------

    def trace(self, W: Tensor) -> Tensor:
        """Tr H = 1/n sum_i [4 ||A_i W||_F^2 + 2 k r_i Tr A_i], exact at every W."""
        outer = (W * (self._mean_square @ W)).sum((-2, -1))
        return 4 * outer + 2 * self.width * (self._residuals(W) * self._traces).mean(-1)

    def hessian(self, W: Tensor) -> Callable[[Tensor], Tensor]:
        """The product with H at one W: V to 2 M V + 2 N W, N = 1/n sum_i <A_i, V W^T + W V^T> A_i, for V (d, k)."""
        curved = self._mean_weighted(self._residuals(W))

        def product(V: Tensor) -> Tensor:
            outer = V @ W.mT
            change = self._mean_weighted(self._measured(outer + outer.mT))
            return 2 * (curved @ V + change @ W)

        return product

    def largest_eigenvalue(self, W: Tensor) -> float:
        """lambda_1 of H at one W, by ARPACK on :meth:`hessian`, to rounding.

        Where W interpolates it is sigma_max([vec(2 A_i W)]_i)^2 / n.
        """
        multiplied = self.hessian(W)
        if W.numel() == 1:  # too small for ARPACK
            return float(multiplied(torch.ones_like(W)))

        def product(v: np.ndarray) -> np.ndarray:
            return multiplied(torch.from_numpy(v).reshape(W.shape)).flatten().numpy()

        H = LinearOperator((W.numel(), W.numel()), matvec=product, dtype=np.float64)
        begin = np.random.default_rng(0).normal(size=W.numel())  # ARPACK's own differs from run to run
        return float(eigsh(H, k=1, which="LA", v0=begin, return_eigenvectors=False)[0])

    # -- for the estimators --------------------------------------------------------------------------------

    def at(self, W: Tensor) -> Problem:
        """The same f at one W as a problem of a model, a loss and data, which knows of no closed form."""
        return Problem(_Model(self._pack, W), _half_square, [(self._measurements, self._targets)])

    # -- symmetric matrices as vectors ---------------------------------------------------------------------

    def _pack(self, symmetric: Tensor) -> Tensor:
        return symmetric[..., self._rows, self._columns] * self._weights

    def _unpack(self, packed: Tensor) -> Tensor:
        entries = packed / self._weights
        matrix = entries.new_empty(*packed.shape[:-1], self.dimension, self.dimension)
        matrix[..., self._rows, self._columns] = entries
        matrix[..., self._columns, self._rows] = entries
        return matrix

    # -- measuring -----------------------------------------------------------------------------------------

    def _measured(self, symmetric: Tensor) -> Tensor:
        """<A_i, S> for every i: (..., n)."""
        # All points with one reading of the measurements, and these first: that is fastest.
        vectors = self._pack(symmetric)
        return (self._measurements @ vectors.reshape(-1, vectors.shape[-1]).mT).mT.reshape(*vectors.shape[:-1], -1)

    def _residuals(self, W: Tensor) -> Tensor:
        return self._measured(W @ W.mT) - self._targets

    def _mean_weighted(self, weights: Tensor) -> Tensor:
        """1/n sum_i weights_i A_i: (..., d, d)."""
        return self._unpack(weights @ self._measurements / self.examples)

    def _mean_of_squares(self) -> Tensor:
        """1/n sum_i A_i^2."""
        total = torch.zeros(self.dimension, self.dimension, dtype=torch.float64)
        for part in torch.split(self._measurements, _MATRICES):
            matrices = self._unpack(part)
            total += torch.einsum("iab,ibc->ac", matrices, matrices)
        return total / self.examples


class _Model(nn.Module):
    """Packed measurements (n, q) to <A_i, W W^T>."""

    def __init__(self, pack: Callable[[Tensor], Tensor], W: Tensor) -> None:
        super().__init__()
        self._pack = pack
        self.W = nn.Parameter(W.clone())

    def forward(self, measurements: Tensor) -> Tensor:
        return measurements @ self._pack(self.W @ self.W.mT)


def _half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square() / 2
