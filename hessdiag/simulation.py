"""Frozen records of the matrix-sensing simulation: settings, curves, sharpness beside its estimates. Plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hessdiag import __version__
from hessdiag.cost import Cost
from hessdiag.errors import UsageError
from hessdiag.results import EigenvaluesResult, TraceResult, plain

__all__ = ["PAPER", "SENSING_METHODS", "SENSING_SCHEMA", "Sensing", "SensingMethod", "SensingRun", "SensingSettings"]

SENSING_SCHEMA = "hessdiag/sensing@1"
SENSING_METHODS = {"GD": 1, "WP-GD": 1, "NSO": 2}
"""Gradients that a step takes, by method, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class SensingSettings:
    """What is simulated. ``lr`` is that of the true gradient, ``sigma`` the noise's standard deviation for each weight.

    Raises:
        UsageError: a size below 1, a rank above the dimension, a learning rate or a sigma out of range.
    """

    dimension: int = 20
    rank: int = 2
    width: int = 20
    examples: int = 200
    steps: int = 3000
    lr: float = 0.0025
    sigma: float = 0.05

    def __post_init__(self) -> None:
        for name in ("dimension", "rank", "width", "examples", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected a whole number of at least 1")
        if self.rank > self.dimension:
            raise UsageError(f"rank: found {self.rank}, expected at most the dimension, {self.dimension}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr: found {self.lr:g}, expected a positive number")
        if not 0 <= self.sigma < math.inf:
            raise UsageError(f"sigma: found {self.sigma:g}, expected a number of at least 0")

    def changed(self, **given: float | None) -> SensingSettings:
        """The same with what is ``given``, None standing for what is not.

        Without a width or examples of their own, a new dimension or rank brings its own: d wide, 5 d rank examples.
        """
        known = {name: value for name, value in given.items() if value is not None}
        settings = asdict(self) | known
        if known.keys() & {"dimension", "rank"}:
            own = {"width": settings["dimension"], "examples": 5 * settings["dimension"] * settings["rank"]}
            settings |= {name: value for name, value in own.items() if name not in known}
        return SensingSettings(**settings)


PAPER = SensingSettings(dimension=100, rank=5, width=100, examples=2500, lr=0.00125, sigma=0.08)
"""The paper's size. At the sigma that it prints, .016, NSO < WP-GD < GD does not show; at .08 it does."""


@dataclass(frozen=True)
class SensingMethod:
    """One method's run: curves at the run's ``steps``, where they end, and how sharp the last weights are.

    The final losses are means over the last tenth of the curves, because WP-GD's jump from step to step. ``trace`` and
    ``lambda_1`` are exact at the last weights; ``estimated_trace`` and ``estimated_eigenvalues`` are what the
    estimators find there. ``gradients`` were spent, each over the whole data.
    """

    name: str
    gradients: int
    training_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    final_training_loss: float
    final_validation_loss: float
    trace: float
    lambda_1: float
    estimated_trace: TraceResult
    estimated_eigenvalues: EigenvaluesResult


@dataclass(frozen=True)
class SensingRun:
    """All methods from one start, with the same noise."""

    seed: int
    steps: tuple[int, ...]
    methods: tuple[SensingMethod, ...]

    @property
    def ordered(self) -> bool:
        """Whether NSO ends with a lower validation loss than WP-GD, and that with a lower one than GD."""
        gd, wp, nso = (method.final_validation_loss for method in self.methods)
        return nso < wp < gd


@dataclass(frozen=True)
class Sensing:
    """The simulation, over one seed or more; ``partial`` while some are still to come."""

    settings: SensingSettings
    runs: tuple[SensingRun, ...]
    status: Literal["complete", "partial"] = "complete"
    cost: Cost = Cost()
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__

    @property
    def ordered(self) -> int:
        """In how many runs NSO < WP-GD < GD."""
        return sum(run.ordered for run in self.runs)

    def by_method(self) -> Iterator[tuple[SensingMethod, ...]]:
        """Of each method in turn, what all runs have of it."""
        return zip(*(run.methods for run in self.runs), strict=True)

    @property
    def curves(self) -> dict[str, dict[str, tuple[tuple[int, ...], list[float]]]]:
        """By the loss and the method, steps and the mean over runs of the values there."""
        steps = self.runs[0].steps
        training, validation = {}, {}
        for methods in self.by_method():
            name = methods[0].name
            training[name] = steps, _mean(method.training_loss for method in methods)
            validation[name] = steps, _mean(method.validation_loss for method in methods)
        return {"Training loss": training, "Validation loss": validation}

    def to_dict(self) -> dict[str, Any]:
        """The document of ``hessdiag nso sensing --json``."""
        body = plain(self)
        for shown, run in zip(body["runs"], self.runs, strict=True):
            shown["ordered"] = run.ordered
        return {"schema": SENSING_SCHEMA, "ordered": self.ordered, **body}


def _mean(curves: Iterable[Sequence[float]]) -> list[float]:
    return [math.fsum(values) / len(values) for values in zip(*curves, strict=True)]
