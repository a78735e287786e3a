"""XTrace's leave-one-out estimates, their spread and their jackknife, from small matrices alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["SketchMatrices"]

_ALONE = 1e-6  # how far a leverage may be below 1 before a column counts as a combination of the others
_PARALLEL = 1e-8  # what is left of a unit vector that lies in another's direction


@dataclass(frozen=True)
class SketchMatrices:
    """What a sketch Y = H Omega of H (n, n) knows, with Q (n, r) an orthonormal basis of its range and Z = HQ.

    Omega is (n, k), its columns w_i Gaussian. Without test vector i the range is Q_i = Q (I - s_i s_i^T), with s_i
    the unit vector of the coordinates that the other columns of Y lack. With P_i = I - Q_i Q_i^T

        t_i = Tr[Q_i^T H Q_i] + (n - rank Q_i) w_i^T P_i H P_i w_i / ||P_i w_i||^2

    is unbiased: w_i is independent of Q_i, and P_i w_i is uniform in direction.

    Source: Epperly, Tropp, Webber 2023 (arXiv 2301.07825), with their improved normalisation.
    """

    n: int
    W: np.ndarray  # Q^T Omega (r, k)
    R: np.ndarray  # Q^T Y = Z^T Omega (r, k)
    K: np.ndarray  # Q^T H Q (r, r)
    ZZ: np.ndarray  # Z^T Z (r, r)
    forms: np.ndarray  # w_i^T y_i (k,)
    lengths: np.ndarray  # ||w_i||^2 (k,)
    squares: np.ndarray  # ||y_i||^2 (k,)

    @property
    def size(self) -> int:
        """The number k of test vectors."""
        return int(self.W.shape[1])

    @cached_property
    def missing(self) -> np.ndarray:
        """The s_i as columns (r, k); zero where column i of Y is a combination of the others."""
        return _missing(self.R)

    @cached_property
    def inside(self) -> np.ndarray:
        """Q_i^T w_i in coordinates of Q, as columns (r, k): w_i less it is P_i w_i."""
        return self._without(self.W, self.missing)

    @cached_property
    def scales(self) -> np.ndarray:
        """(n - rank Q_i) / ||P_i w_i||^2, (k,)."""
        return self._scales(np.arange(self.size), self.inside, _count(self.missing))

    @cached_property
    def estimates(self) -> np.ndarray:
        """The t_i, (k,)."""
        return self._estimates(np.arange(self.size), self.inside, self._forms_in(self.missing), _count(self.missing))

    @property
    def spread(self) -> float:
        """Standard deviation of the t_i over sqrt k: too small for their mean's error, because they share a basis."""
        return float(self.estimates.std(ddof=1)) / math.sqrt(self.size)

    @cached_property
    def jackknife(self) -> float:
        """The jackknife's standard error of the mean of the t_i: too large in the mean (Efron and Stein 1981)."""
        means = np.array([self._without_one(i).mean() for i in range(self.size)])
        return math.sqrt((self.size - 1) / self.size * float(((means - means.mean()) ** 2).sum()))

    @property
    def frobenius(self) -> float:
        """||H||_F^2, estimated."""
        return float((self.squares * self.n / self.lengths).mean())

    @property
    def frobenius_left(self) -> float:
        """||P_i H P_i||_F^2, estimated: half the variance of a Gaussian probe's form outside the sketch."""
        u = self.inside
        along = self._without(self.R - self.K @ u, self.missing)  # Q_i^T H P_i w_i
        whole = self.squares - 2 * (self.R * (self.K @ u)).sum(0) + (u * (self.ZZ @ u)).sum(0)  # ||H P_i w_i||^2
        return float((self.scales * np.maximum(whole - (along**2).sum(0), 0.0)).mean())

    def _without_one(self, i: int) -> np.ndarray:
        """The estimates t_j, j != i, that there would be without test vector i, (k - 1,)."""
        others = np.delete(np.arange(self.size), i)
        first = self.missing[:, [i]]
        if first.any():
            second = _units(self._without(self.missing[:, others], first), _PARALLEL)
        else:  # the others hold the range between them; one more may be what holds a direction of it
            second = _missing(self.R[:, others])
        u = self._without(self._without(self.W[:, others], first), second)
        lost = self._forms_in(first) + self._forms_in(second)
        return self._estimates(others, u, lost, _count(first) + _count(second))

    def _estimates(self, which: np.ndarray, u: np.ndarray, lost: np.ndarray, fewer: np.ndarray) -> np.ndarray:
        """T for these test vectors; u is their part inside the range that is left, ``lost`` the trace on the rest."""
        forms = self.forms[which] - 2 * (self.R[:, which] * u).sum(0) + (u * (self.K @ u)).sum(0)
        estimates: np.ndarray = np.trace(self.K) - lost + self._scales(which, u, fewer) * forms
        return estimates

    def _scales(self, which: np.ndarray, u: np.ndarray, fewer: np.ndarray) -> np.ndarray:
        free = self.n - (len(self.R) - fewer)
        left = self.lengths[which] - 2 * (u * self.W[:, which]).sum(0) + (u**2).sum(0)
        return np.where((free > 0) & (left > 0), free / np.where(left > 0, left, 1.0), 0.0)

    def _forms_in(self, units: np.ndarray) -> np.ndarray:
        forms: np.ndarray = (units * (self.K @ units)).sum(0)
        return forms

    @staticmethod
    def _without(columns: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Columns less their part along a unit vector (one for all, or one each)."""
        less: np.ndarray = columns - units * (units * columns).sum(0)
        return less


def _missing(R: np.ndarray) -> np.ndarray:
    """For each column of R the unit vector orthogonal to all other columns, in their range; zero where there is none.

    They are the rows of the pseudoinverse, normalised: such a row is orthogonal to all columns but its own.
    """
    dual = np.linalg.pinv(R, rcond=1e-13)
    alone = (dual * R.T).sum(1) > 1 - _ALONE  # the leverage of e_i in the row space
    return _units(dual.T * alone, 0.0)


def _units(columns: np.ndarray, least: float) -> np.ndarray:
    """Columns normalised; zero where they are no longer than ``least``."""
    norms = np.linalg.norm(columns, axis=0)
    units: np.ndarray = np.where(norms > least, columns / np.where(norms > least, norms, 1.0), 0.0)
    return units


def _count(units: np.ndarray) -> np.ndarray:
    """1 for a unit vector, 0 for none."""
    counts: np.ndarray = units.any(0).astype(int)
    return counts
