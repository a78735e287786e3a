"""What a measurement costs, in passes over the whole data, counted as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Cost", "Meter"]

Kind = Literal["forward", "gradient", "hvp"]


@dataclass(frozen=True)
class Cost:
    """Whole-data passes of each kind, and the seconds that they took.

    One ``forward`` is one evaluation of the loss over the data, one ``gradient`` one gradient of it,
    one ``hvp`` one product of its Hessian with one vector.
    """

    forward: int | float = 0
    gradient: int | float = 0
    hvp: int | float = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _tidy(self.forward + other.forward),
            _tidy(self.gradient + other.gradient),
            _tidy(self.hvp + other.hvp),
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Cost) -> Cost:
        return self + Cost(-other.forward, -other.gradient, -other.hvp, -other.seconds)

    @property
    def passes(self) -> float:
        """All kinds together."""
        return self.forward + self.gradient + self.hvp


class Meter:
    """Counts passes batch by batch, and tells a watcher (a progress bar) of each one.

    Batches are counted as whole numbers, so that full passes come out as exact integers.
    ``expect`` is an estimator's forecast of the passes that its stage still needs.
    """

    def __init__(self, batches_per_pass: int = 1) -> None:
        self.batches_per_pass = batches_per_pass
        self.watcher: Callable[[Meter], None] | None = None
        self.expected_passes = 0.0
        self._batches: dict[Kind, int] = {"forward": 0, "gradient": 0, "hvp": 0}
        self._started = time.perf_counter()

    def add(self, kind: Kind, batches: int) -> None:
        """Count ``batches`` batches' worth of work of one kind."""
        self._batches[kind] += batches
        if self.watcher is not None:
            self.watcher(self)

    def expect(self, passes: float) -> None:
        """Forecast how many more passes the current stage will take."""
        self.expected_passes = self.read().passes + passes
        if self.watcher is not None:
            self.watcher(self)

    def read(self) -> Cost:
        """The cost since this meter was made; subtract two readings to cost a stage."""
        return Cost(
            forward=self._passes("forward"),
            gradient=self._passes("gradient"),
            hvp=self._passes("hvp"),
            seconds=time.perf_counter() - self._started,
        )

    def _passes(self, kind: Kind) -> int | float:
        return _tidy(self._batches[kind] / self.batches_per_pass)


def _tidy(passes: int | float) -> int | float:
    """Thirds of a pass do not add up to a whole one in binary; whole passes are whole numbers."""
    rounded = round(passes, 9)
    return int(rounded) if rounded == int(rounded) else rounded
