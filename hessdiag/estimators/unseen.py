"""How far the spectrum may reach beyond what a Lanczos sequence from a random start has found of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import linalg, optimize, stats

__all__ = ["Sequence"]

_ROUNDINGS = 10  # of the vectors' dtype, relative to the largest |Ritz value|: products carry a few


@dataclass
class Sequence:
    """The tridiagonal matrix of Lanczos steps from one random start, and what it says of eigenvalues not yet seen.

    The vectors are v_{j+1} = p_j(C) v_1 with polynomials p_0 = 1 and
    beta_{j+1} p_{j+1}(x) = (x - alpha_{j+1}) p_j(x) - beta_j p_{j-1}(x). They are orthonormal, so a unit eigenvector
    u of C with eigenvalue x has sum_j (u.v_{j+1})^2 = (u.v_1)^2 sum_j p_j(x)^2 <= 1. Beyond the outermost Ritz
    value the sum grows like an exponential of the number of steps, so an eigenvalue far beyond would need a start
    almost orthogonal to its vector, which for a random start is improbable.

    Args:
        order: of C; where the start was drawn in the orthogonal complement of k vectors, n - k.
        epsilon: of the vectors' dtype.

    Source: van Dorsselaer, Hochstenbach, van der Vorst 2000 (SIAM J. Matrix Anal. Appl. 22, 837), with the sum over
    all p_j^2 in the place of their last one; Kuczynski, Wozniakowski 1992 for the idea.
    """

    order: int
    epsilon: float
    alphas: list[float] = field(default_factory=list)
    betas: list[float] = field(default_factory=list)  # the last one leads to the vector still to be multiplied

    def add(self, alpha: float, beta: float) -> None:
        """Take in one step; ``beta`` 0: the sequence ended in an invariant subspace."""
        self.alphas.append(alpha)
        self.betas.append(beta)

    def upper(self, doubt: float) -> float:
        """What no eigenvalue of C exceeds, except with probability ``doubt`` over the start."""
        return self._beyond(np.array(self.alphas), doubt)

    def lower(self, doubt: float) -> float:
        """What no eigenvalue of C falls below, except with probability ``doubt`` over the start."""
        return -self._beyond(-np.array(self.alphas), doubt)

    def _beyond(self, alphas: np.ndarray, doubt: float) -> float:
        ritz = linalg.eigvalsh_tridiagonal(alphas, self.betas[:-1])
        scale = max(float(np.abs(ritz).max()), self.betas[-1])
        rounding = _ROUNDINGS * self.epsilon * scale
        if self.betas[-1] == 0:  # what is outside the invariant subspace is orthogonal to the start: probability 0
            return float(ritz[-1]) + rounding
        excluded = -math.log(self._least_share(doubt))
        largest, alphas, betas = float(ritz[-1]) / scale, alphas / scale, [beta / scale for beta in self.betas]

        def certainty(x: float) -> float:
            return _log_sum_of_squares(x, alphas, betas) - excluded

        if certainty(largest) >= 0:
            return largest * scale + rounding
        reach = 1.0
        while certainty(largest + reach) < 0:
            reach *= 2
        return float(optimize.brentq(certainty, largest, largest + reach, xtol=1e-9)) * scale + rounding

    def _least_share(self, doubt: float) -> float:
        """The quantile of (u.v_1)^2, which is beta(1/2, (order - 1)/2) for a uniformly random direction."""
        return float(stats.beta.ppf(doubt, 0.5, (self.order - 1) / 2)) if self.order > 1 else 1.0


def _log_sum_of_squares(x: float, alphas: np.ndarray, betas: list[float]) -> float:
    """The logarithm of sum_{j=0..m} p_j(x)^2 for x beyond all Ritz values; by ratios, since the p_j overflow."""
    total, log, ratio, before = 0.0, 0.0, math.inf, 0.0
    for alpha, beta in zip(alphas.tolist(), betas, strict=True):
        ratio = (x - alpha - before / ratio) / beta
        if ratio <= 0:  # at the outermost Ritz value itself, where p_m has its root
            break
        log += math.log(ratio)
        total = float(np.logaddexp(total, 2 * log))
        before = beta
    return total
