"""What every method of the trace is asked, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from hessdiag.cost import Cost
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.errors import UsageError
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.results import GroupTrace, TraceResult

__all__ = ["TraceGoal", "Traced"]

_ROUNDINGS = 2.5  # of what products are computed in: 3e-7 in float32, the floor of an interval's relative half-width
_REACH = 2.6  # standard errors on each side


@dataclass(frozen=True)
class Traced:
    """An estimate, whole and, once they have been made, by group, (groups,)."""

    value: float
    stderr: float
    interval: tuple[float, float]
    group_values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    group_stderrs: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def with_groups(self, values: np.ndarray, stderrs: np.ndarray) -> Traced:
        """The same with its groups, (groups,) each."""
        return replace(self, group_values=values, group_stderrs=stderrs)


@dataclass(frozen=True, kw_only=True)
class TraceGoal:
    """How well a trace is wanted, and what it may cost.

    Args:
        rtol: stop when the interval's half-width is at most ``rtol`` times |value|.
        max_matvecs: passes over the data allowed.
        confidence: of the interval, optional stopping included.
        seed: of the probes.
        probes: other Rademacher probes than those of ``seed``.
        basis: vectors (n, k) that H is known on, as the eigenvalues leave them, and their products with H (n, k).

    Raises:
        UsageError: a goal that nothing can meet.
    """

    rtol: float = 0.05
    max_matvecs: int = 2000
    confidence: float = 0.95
    seed: int = 0
    probes: Probes | None = None
    basis: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.rtol > 0:
            raise UsageError(f"rtol: found {self.rtol}, expected a positive number")

    def rademacher(self, H: SymmetricOperator) -> Probes:
        """The probes for quadratic forms."""
        return self.probes or Probes(H.n, seed=self.seed, stream=Stream.TRACE, device=H.device, dtype=H.dtype)

    def rounding(self, H: SymmetricOperator) -> float:
        """The relative half-width below which no interval shrinks: for the rounding of a trace's sums.

        What the model's own precision does to its outputs comes on top, about eps |z| for logits z of which the loss
        is nearly certain: 3.4e-7 on a trained convolutional network in float32.
        """
        return _ROUNDINGS * torch.finfo(H.precision).eps

    def met(self, value: float, interval: tuple[float, float]) -> bool:
        """Whether an interval is narrow enough."""
        return (interval[1] - interval[0]) / 2 <= self.rtol * abs(value)

    def probes_for(self, std: float, value: float) -> float:
        """How many independent samples with this standard deviation meet it, at the level of several looks."""
        wanted = self.rtol * abs(value)
        return (_REACH * std / wanted) ** 2 if wanted > 0 else math.inf if std > 0 else 0.0

    def result(
        self, H: SymmetricOperator, traced: Traced, *, method: str, probes: int, matvecs: int, reason: str = ""
    ) -> TraceResult:
        """The record of an estimate."""
        groups = zip(H.groups, traced.group_values.tolist(), traced.group_stderrs.tolist(), strict=True)
        return TraceResult(
            value=traced.value,
            stderr=traced.stderr,
            interval=traced.interval,
            confidence=self.confidence,
            method=method,
            probes=probes,
            matvecs=matvecs,
            converged=self.met(traced.value, traced.interval),
            rtol=self.rtol,
            groups=tuple(GroupTrace(group.name, group.size, value, stderr) for group, value, stderr in groups),
            seed=self.seed,
            cost=Cost(),
            reason=reason,
        )
