"""Quadratic forms with random vectors, gathered until their mean is known well enough."""

from __future__ import annotations

import math

import numpy as np

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import QuadraticForms
from hessdiag.estimators.intervals import look_level, looks, mean_interval
from hessdiag.estimators.known_subspace import KnownSubspace
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.trace_goal import Traced, TraceGoal

__all__ = ["Sampling"]


class Sampling:
    """The mean over probes of sum_b v_b^T H_b v_b, outside a subspace on which H is known.

    Where that subspace was found without these probes, their forms are independent samples of Tr[PHP].

    Args:
        H: the operator.
        goal: how well.
        known: the subspace; default: none.
        maximum: of the probes; at least 2.
        vital: whether the first probes are served when the time is up; without it they raise OutOfTime.
    """

    def __init__(
        self,
        H: SymmetricOperator,
        goal: TraceGoal,
        *,
        known: KnownSubspace | None = None,
        maximum: int,
        vital: bool = True,
    ) -> None:
        self._H, self._goal, self._vital = H, goal, vital
        known = known or KnownSubspace(H)
        self._known = known.trace_by_group().numpy()
        self._draw = known.deflated(goal.rademacher(H)) if known.size else goal.rademacher(H)
        self._looks = looks(maximum)
        self._level = look_level(len(self._looks), goal.confidence)
        self.forms = np.zeros((0, len(H.groups)))
        self.out_of_time = False

    @property
    def probes(self) -> int:
        """How many there are."""
        return len(self.forms)

    @property
    def std(self) -> float:
        """The standard deviation of a probe's form."""
        return float(self.forms.sum(1).std(ddof=1))

    @property
    def ended(self) -> bool:
        """Whether there is no reason, or no way, to go on."""
        if self.out_of_time or self.probes >= self._looks[-1]:
            return True
        # Between looks the interval is no one's business: each look at it costs some of its confidence.
        return self.probes in self._looks and self._goal.met(*self._interval())

    def pilot(self, count: int) -> Steps[None]:
        """The first ``count`` probes, for a forecast."""
        yield from self._gather(min(count, self._looks[0]))

    def look(self) -> Steps[None]:
        """Gather up to the next look."""
        yield from self._gather(self._next_look(self.probes + 1))

    def steps(self) -> Steps[Traced]:
        """Gather until the goal is met, the probes are spent or the time is up."""
        while not self.ended:
            yield from self.look()
        return self.traced()

    def traced(self) -> Traced:
        """The estimate from what there is."""
        totals = self._known.sum() + self.forms.sum(1)
        value, stderr, interval = mean_interval(totals, self._level, self._goal.rounding(self._H))
        spread = self.forms.std(0, ddof=1)
        return Traced(value, stderr, interval, self._known + self.forms.mean(0), spread / math.sqrt(self.probes))

    def needed(self) -> float:
        """How many probes meet the goal, by what is known now."""
        return self._goal.probes_for(self.std, float(self._known.sum() + self.forms.sum(1).mean()))

    def spare(self, count: int) -> None:
        """Make do with so many fewer probes."""
        maximum = max(self._looks[-1] - count, self.probes)
        self._looks = [size for size in self._looks if size < maximum] + [maximum]

    def _interval(self) -> tuple[float, tuple[float, float]]:
        traced = self.traced()
        return traced.value, traced.interval

    def _next_look(self, least: float) -> int:
        return next((size for size in self._looks if size >= least), self._looks[-1])

    def _gather(self, size: int) -> Steps[None]:
        ahead = self._next_look(self.needed()) - size if self.probes > 1 else 0
        numbers = range(self.probes, size)
        try:
            more = yield QuadraticForms(
                self._draw, numbers, vital=self._vital and not self.probes, expect=max(ahead, 0)
            )
        except OutOfTime:
            if not self.probes:
                raise
            self.out_of_time = True
            return
        self.forms = np.concatenate([self.forms, more.sums.numpy()])
