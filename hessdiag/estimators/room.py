"""How many vectors an estimator may store."""

from __future__ import annotations

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.memory import available_memory

__all__ = ["Room"]


class Room:
    """Memory for vectors: what the user gives, or half of what is free; the rest is for products and their graphs.

    Args:
        H: whose vectors.
        memory: bytes; None: half of what is free on the vectors' device.

    Attributes:
        vectors: how many fit.
    """

    def __init__(self, H: SymmetricOperator, memory: int | None) -> None:
        self._n, self._each, self._given = H.n, H.n * H.dtype.itemsize, memory is not None
        self.vectors: int = (available_memory(H.device) // 2 if memory is None else memory) // self._each

    def demand(self, least: int, why: str) -> None:
        """Refuse to go on unless ``least`` vectors fit; ``why`` says what for, and what to do instead.

        Raises:
            UsageError: the user gives too little.
            MeasurementError: too little is free.
        """
        if self.vectors >= least:
            return
        found, needed = (f"{count * self._each / 1e6:,.3g} MB" for count in (self.vectors, least))
        message = (
            f"memory: found room for {self.vectors} vectors of {self._n:,} parameters ({found}), "
            f"expected for {least} ({needed}): {why}, or "
        )
        raise UsageError(f"{message}allow more") if self._given else MeasurementError(f"{message}free some")
