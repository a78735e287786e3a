"""An orthonormal basis grown by products, and the operator projected on it.

From one start vector this is the Lanczos process with full two-pass reorthogonalisation (the projected
matrix is tridiagonal, float64). Further start vectors may join at any time: single-vector Lanczos cannot
see a second copy of an eigenvalue, a fresh direction orthogonal to all that is known can. And the basis may be
shrunk at any time to some of its Ritz vectors: a thick restart, where memory holds no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessdiag.estimators.rows import Rows
from hessdiag.estimators.unseen import Sequence

__all__ = ["KrylovBasis", "Ritz"]

_BREAKDOWN = 100  # roundings; products of a dense matrix of order 100 already leave ten behind
_CLEAN = 0.5  # of a remainder must be left by the second pass, or it takes a third


@dataclass(frozen=True)
class Ritz:
    """Ritz values in ascending order, their coordinates in the basis, and bounds on their residuals."""

    values: np.ndarray  # (m,)
    coordinates: np.ndarray  # (m, m), a column for each value
    residuals: np.ndarray  # (m,), >= ||H y - theta y||


@dataclass
class _Pending:
    """A direction outside the basis: H times basis vector j leaves ``shares[j]`` times ``vector`` (a start: none).

    ``clean``: orthogonal to the basis to rounding even when it is scaled up to a unit vector. ``live``: it carries
    on the basis's sequence.
    """

    shares: np.ndarray
    vector: Tensor
    norm: float
    clean: bool
    live: bool


class KrylovBasis:
    """Grow with ``candidate`` (the next unit vector to multiply) and ``absorb`` (its product).

    Attributes:
        projected: (m, m) float64, the operator on the basis.
        sequence: the Lanczos steps from the latest start; a start is orthogonal to all that was in the basis before,
            so they are those of the operator on the complement. None once the basis has been shrunk after it, or a
            candidate withdrawn.

    Args:
        n: the order of the operator.
        dtype: of the vectors.
        device: of the vectors.
    """

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n = n
        self.projected = np.zeros((0, 0))
        self.sequence: Sequence | None = None
        self._rows = Rows(n, dtype, device)
        self._pending: list[_Pending] = []
        self._lost: list[_Pending] = []
        self._candidate_is_live = False
        self._epsilon = torch.finfo(dtype).eps

    @property
    def size(self) -> int:
        """Vectors in the basis."""
        return self._rows.size

    @property
    def waiting(self) -> int:
        """Directions held in memory besides, which wait to join the basis."""
        return len(self._pending)

    @property
    def vectors(self) -> Tensor:
        """A copy of the basis, (m, n), orthonormal rows."""
        return self._rows.tensor()

    @property
    def exhausted(self) -> bool:
        """No direction is pending: the basis is an invariant subspace."""
        return not self._pending

    def start(self, vector: Tensor) -> None:
        """Add a start direction; it is the next candidate."""
        outside, _, clean = self._orthogonalised(vector / torch.linalg.vector_norm(vector))
        self.sequence = Sequence(self.n - self.size, self._epsilon)
        for other in self._pending:
            other.live = False
        self._push(np.zeros(self.size), outside, clean, live=True)

    def candidate(self) -> Tensor:
        """The next unit vector, orthogonal to the basis; it joins it. ``absorb`` its product next."""
        pending = self._pending.pop()
        vector = pending.vector / pending.norm
        if not pending.clean:  # a short remainder is mostly rounding once it is scaled up
            vector = self._orthogonalised(vector)[0]
            vector = vector / torch.linalg.vector_norm(vector)
        self._rows.append(vector)
        self._candidate_is_live = pending.live
        for other in self._pending:
            other.vector = other.vector - vector * (vector @ other.vector)
            other.norm = float(torch.linalg.vector_norm(other.vector))
            other.clean = False
        # What the new vector took whole would be scaled up from rounding, or from zero to NaN.
        self._pending = [other for other in self._pending if self._counts(other)]
        joined: Tensor = vector
        return joined

    def withdraw(self) -> None:
        """Take the last candidate out again: there will be no product of it."""
        self._rows.cut(self.size - 1)
        self.sequence = None  # of the directions outside one is gone with it

    def absorb(self, product: Tensor) -> None:
        """Take in H times the last candidate."""
        remainder, coefficients, clean = self._orthogonalised(product)
        grown = np.zeros((self.size, self.size))
        grown[:-1, :-1] = self.projected
        grown[-1, :] = grown[:, -1] = coefficients.double().cpu().numpy()
        self.projected = grown
        if self._candidate_is_live and self.sequence is not None:
            beta = float(torch.linalg.vector_norm(remainder)) if self.size < self.n else 0.0
            self.sequence.add(float(grown[-1, -1]), beta)
        if self.size < self.n:
            self._push(np.eye(self.size)[-1], remainder, clean, self._candidate_is_live)

    def ritz(self) -> Ritz:
        """Rayleigh-Ritz on the basis; each residual bound adds up the shares of the directions outside."""
        values, coordinates = np.linalg.eigh(self.projected)
        residuals = np.abs(self._outside() @ coordinates).sum(0)
        return Ritz(values, coordinates, residuals)

    def bordered(self, bound: float) -> np.ndarray:
        """Eigenvalues, ascending, of a matrix that H does not exceed where no eigenvalue outside exceeds ``bound``.

        On basis and complement H = [T, E^T; E, C] with C <= bound I, so the j-th largest eigenvalue of H is at most
        that of [T, E^T; E, bound I]: the j-th of these, or ``bound``, whichever is larger. E has the p directions
        outside as columns, whose angles are not looked at: E^T E is at most p times what it is if they are
        orthogonal. With C >= bound I the same holds for the smallest, the other way round.
        """
        outside = self._outside()
        outside = math.sqrt(len(outside)) * outside
        corner = bound * np.eye(len(outside))
        return np.linalg.eigvalsh(np.block([[self.projected, outside.T], [outside, corner]]))

    def expand(self, coordinates: np.ndarray) -> Tensor:
        """Vectors (n, k) from their coordinates (m, k), normalised."""
        vectors = self._rows.combined(coordinates)
        unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=0)
        return unit

    def shrink(self, ritz: Ritz, places: np.ndarray) -> None:
        """Keep only the Ritz vectors at ``places``: a thick restart.

        H times what is kept still lies in its span and the directions that wait (Wu, Simon 2000, SIAM J. Matrix
        Anal. Appl. 22, 602), so the basis grows on from there as before.
        """
        kept = ritz.coordinates[:, places]
        for pending in (*self._pending, *self._lost):
            pending.shares = _padded(pending.shares, self.size) @ kept
        self._pending = self._pending[-1:] + self._pending[:-1]  # each in turn, or what one leaves would never improve
        self._rows.rotate(kept)
        self.projected = np.diag(ritz.values[places])
        self.sequence = None

    def cut_back(self, size: int) -> None:
        """Take the basis back to its first ``size`` vectors, all from one start, as if the others had never come."""
        last = np.zeros((self.size, 1))
        last[size:, 0] = self.projected[size:, size - 1]
        remainder = self._rows.combined(last)[:, 0]
        for pending in self._pending:
            remainder += float(_padded(pending.shares, self.size)[size - 1]) * pending.vector
        self._rows.cut(size)
        self.projected = self.projected[:size, :size]
        self.sequence, self._pending = None, []
        self._push(np.eye(size)[-1], remainder, clean=False, live=True)

    def forget(self) -> None:
        """Free the memory of the direction that would be the last to join; the residuals go on counting it."""
        lost = self._pending.pop(0)
        lost.vector = lost.vector.new_empty(0)
        self._lost.append(lost)

    def _outside(self) -> np.ndarray:
        """What H times the basis vectors leaves outside, (p, m): lengths along each of the directions there."""
        outside = [_padded(one.shares, self.size) * one.norm for one in (*self._pending, *self._lost)]
        return np.array([row for row in outside if row.any()]).reshape(-1, self.size)

    def _push(self, shares: np.ndarray, vector: Tensor, clean: bool, live: bool) -> None:
        pending = _Pending(shares, vector, float(torch.linalg.vector_norm(vector)), clean, live)
        if self._counts(pending):
            self._pending.append(pending)

    def _counts(self, pending: _Pending) -> bool:
        """Whether a direction is more than the rounding of the product that it is left from."""
        scale = float(np.abs(self.projected).max()) if pending.shares.any() else 1.0
        return pending.norm > _BREAKDOWN * self._epsilon * scale

    def _orthogonalised(self, vector: Tensor) -> tuple[Tensor, Tensor, bool]:
        """The part of a vector outside the basis, its coordinates inside, and whether the part is clean.

        Two passes (Kahan: twice is enough, unless the second one still takes much).
        """
        coordinates = self._rows.dot(vector)
        vector = self._rows.subtract(coordinates, vector)
        before = torch.linalg.vector_norm(vector)
        again = self._rows.dot(vector)
        vector = self._rows.subtract(again, vector)
        clean = bool(torch.linalg.vector_norm(vector) >= _CLEAN * before)
        return vector, coordinates + again, clean


def _padded(shares: np.ndarray, size: int) -> np.ndarray:
    """Shares of a basis that has grown since."""
    return np.concatenate([shares, np.zeros(size - len(shares))])
