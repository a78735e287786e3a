"""Quadratic forms with random vectors, gathered until their mean is known well enough."""

from __future__ import annotations

import math

import numpy as np

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import QuadraticForms
from hessdiag.estimators.intervals import FIRST_LOOK, look_level, looks, mean_interval
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
        first_look: how many probes there are when the interval is first looked at.
        vital: whether the first probes are served when the time is up; without it they raise OutOfTime.
    """

    def __init__(
        self,
        H: SymmetricOperator,
        goal: TraceGoal,
        *,
        known: KnownSubspace | None = None,
        maximum: int,
        first_look: int = FIRST_LOOK,
        vital: bool = True,
    ) -> None:
        self._H, self._goal, self._vital = H, goal, vital
        known = known or KnownSubspace(H)
        self._known = known.trace_by_group().numpy()
        self._draw = known.deflated(goal.rademacher(H)) if known.size else goal.rademacher(H)
        self._looks = looks(maximum, first_look)
        self._level = look_level(len(self._looks), goal.confidence)
        self.forms = np.zeros((0, len(H.groups)))
        self.out_of_time = False

    @property
    def probes(self) -> int:
        """How many there are."""
        return len(self.forms)

    def look(self) -> Steps[Traced]:
        """Gather up to the next look."""
        yield from self._gather(self._next_look(self.probes + 1))
        return self.traced()

    def steps(self) -> Steps[Traced]:
        """Gather until the goal is met, the probes are spent or the time is up."""
        traced = self.traced() if self.probes > 1 else (yield from self.look())
        while not self.ended(traced):
            traced = yield from self.look()
        return traced

    def ended(self, traced: Traced) -> bool:
        """Whether there is no reason, or no way, to go on."""
        return self.out_of_time or self.probes >= self._looks[-1] or self._goal.met(traced.value, traced.interval)

    def traced(self) -> Traced:
        """The estimate from what there is."""
        rounding = self._goal.rounding(self._H)
        totals = self._known.sum() + self.forms.sum(1)
        value, stderr, interval = mean_interval(totals, self._level, rounding)
        spread = self.forms.std(0, ddof=1)
        return Traced(value, stderr, interval, self._known + self.forms.mean(0), spread / math.sqrt(self.probes))

    def forecast(self, traced: Traced) -> int:
        """How many probes there will be when the goal is met, by what is known now."""
        needed = self._goal.probes_for(traced.stderr * math.sqrt(self.probes), traced.value)
        return self._next_look(needed)

    def spare(self, count: int) -> None:
        """Make do with so many fewer probes."""
        maximum = max(self._looks[-1] - count, self.probes)
        self._looks = [size for size in self._looks if size < maximum] + [maximum]

    def _next_look(self, least: float) -> int:
        return next((size for size in self._looks if size >= least), self._looks[-1])

    def _gather(self, size: int) -> Steps[None]:
        ahead = self.forecast(self.traced()) - size if self.probes > 1 else 0
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
