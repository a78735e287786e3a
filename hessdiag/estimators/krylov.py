"""An orthonormal basis grown by products, and the operator projected on it.

From one start vector this is the Lanczos process with full two-pass reorthogonalisation (the projected
matrix is tridiagonal, float64). Further start vectors may join at any time: single-vector Lanczos cannot
see a second copy of an eigenvalue, a fresh direction orthogonal to all that is known can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["KrylovBasis", "Ritz"]

_FIRST_CAPACITY = 16
_BREAKDOWN = 100  # roundings; products of a dense matrix of order 100 already leave ten behind


@dataclass(frozen=True)
class Ritz:
    """Ritz values in ascending order, their coordinates in the basis, and bounds on their residuals."""

    values: np.ndarray  # (m,)
    coordinates: np.ndarray  # (m, m), a column for each value
    residuals: np.ndarray  # (m,), >= ||H y - theta y||


@dataclass
class _Pending:
    """A direction outside the basis: what is left of the product of basis vector ``column`` (None: a start)."""

    column: int | None
    vector: Tensor
    norm: float


class KrylovBasis:
    """Grow with ``candidate`` (the next unit vector to multiply) and ``absorb`` (its product).

    Args:
        n: the order of the operator.
        dtype: of the vectors.
        device: of the vectors.
    """

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n, self.size = n, 0
        self.projected = np.zeros((0, 0))
        self._storage = torch.empty(min(_FIRST_CAPACITY, n), n, dtype=dtype, device=device)
        self._pending: list[_Pending] = []
        self._epsilon = torch.finfo(dtype).eps

    @property
    def vectors(self) -> Tensor:
        """The basis, (m, n), orthonormal rows."""
        rows: Tensor = self._storage[: self.size]
        return rows

    @property
    def exhausted(self) -> bool:
        """No direction is pending: the basis is an invariant subspace."""
        return not self._pending

    def start(self, vector: Tensor) -> None:
        """Add a start direction; it is the next candidate."""
        self._push(None, self._orthogonalised(vector / torch.linalg.vector_norm(vector))[0])

    def candidate(self) -> Tensor:
        """The next unit vector, orthogonal to the basis; it joins it. ``absorb`` its product next."""
        pending = self._pending.pop()
        # A short remainder is mostly rounding once it is scaled up: orthogonalise the unit vector again.
        vector = self._orthogonalised(pending.vector / pending.norm)[0]
        vector = vector / torch.linalg.vector_norm(vector)
        if self.size == len(self._storage):
            more = self._storage.new_empty(min(self.size, self.n - self.size), self.n)
            self._storage = torch.cat([self._storage, more])
        self._storage[self.size] = vector
        self.size += 1
        for other in self._pending:
            other.vector = other.vector - vector * (vector @ other.vector)
            other.norm = float(torch.linalg.vector_norm(other.vector))
        # What the new vector took whole would be scaled up from rounding, or from zero to NaN.
        self._pending = [other for other in self._pending if self._counts(other)]
        joined: Tensor = vector
        return joined

    def withdraw(self) -> None:
        """Take the last candidate out again: there will be no product of it."""
        self.size -= 1

    def absorb(self, product: Tensor) -> None:
        """Take in H times the last candidate."""
        remainder, coefficients = self._orthogonalised(product)
        grown = np.zeros((self.size, self.size))
        grown[:-1, :-1] = self.projected
        grown[-1, :] = grown[:, -1] = coefficients.double().cpu().numpy()
        self.projected = grown
        if self.size < self.n:
            self._push(self.size - 1, remainder)

    def ritz(self) -> Ritz:
        """Rayleigh-Ritz on the basis; each residual bound adds up the pending directions' shares."""
        values, coordinates = np.linalg.eigh(self.projected)
        residuals = np.zeros(self.size)
        for pending in self._pending:
            if pending.column is not None:
                residuals += np.abs(coordinates[pending.column]) * pending.norm
        return Ritz(values, coordinates, residuals)

    def expand(self, coordinates: np.ndarray) -> Tensor:
        """Vectors (n, k) from their coordinates (m, k), normalised."""
        vectors = self.vectors.T @ torch.from_numpy(coordinates).to(self._storage)
        unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=0)
        return unit

    def _push(self, column: int | None, vector: Tensor) -> None:
        pending = _Pending(column, vector, float(torch.linalg.vector_norm(vector)))
        if self._counts(pending):
            self._pending.append(pending)

    def _counts(self, pending: _Pending) -> bool:
        """Whether a direction is more than the rounding of the product that it is left from."""
        scale = 1.0 if pending.column is None else float(np.abs(self.projected).max())
        return pending.norm > _BREAKDOWN * self._epsilon * scale

    def _orthogonalised(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a vector outside the basis, and its coordinates inside; two passes (Kahan: twice is enough)."""
        basis = self.vectors
        coordinates = basis @ vector
        vector = vector - coordinates @ basis
        again = basis @ vector
        return vector - again @ basis, coordinates + again
