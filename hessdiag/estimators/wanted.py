"""What is wanted of the ends of a spectrum, and what a search for it comes back with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hessdiag.estimators.krylov import KrylovBasis
from hessdiag.results import EigenvalueBounds

__all__ = ["Found", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """How many eigenpairs from each end, and how well: residuals relative to the largest |eigenvalue|."""

    top: int
    bottom: int
    rtol: float

    @property
    def count(self) -> int:
        """From both ends together."""
        return self.top + self.bottom

    def with_neighbours(self, more: int) -> Wanted:
        """These and ``more`` next to them, shared out as these are."""
        above = round(more * self.top / self.count)
        return Wanted(self.top + above, self.bottom + more - above, self.rtol)

    def places(self, size: int) -> np.ndarray:
        """Where they stand among ``size`` ascending Ritz values."""
        return np.concatenate([np.arange(self.bottom), np.arange(size - self.top, size)])


@dataclass(frozen=True)
class Found:
    """Unit vectors (n, top + bottom) that a further product is to confirm.

    ``scale`` is the largest |eigenvalue| seen on the way: an end of the spectrum near zero has no other scale to be
    small against. ``complete``: the search came to its end. ``started``: the first Krylov sequence, if
    it is there still.
    """

    vectors: Tensor
    matvecs: int
    complete: bool
    scale: float
    bounds: EigenvalueBounds | None = None
    restarts: int = 0
    started: KrylovBasis | None = None
