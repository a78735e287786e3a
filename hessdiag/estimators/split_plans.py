"""What to take next of the parts of a split trace, the Gauss-Newton part first: the least work that gets there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hessdiag.estimators.allocation import Sampled, counts_for

__all__ = ["Plan", "Planner"]

_EXACT_PAYS = 2  # times the work: an exact part has no error at all
_GROWTH = 32  # at most, from one plan to the next: an early variance may be far off
_COARSER = 1.002  # at least, from one step to the next of a goal that the budget cannot meet


@dataclass(frozen=True)
class Plan:
    """What to take before the next look: more samples of each part, and all ``directions`` of G or none (0)."""

    more: Sequence[int]
    directions: int
    work: float  # until the goal is met, in gradients

    @property
    def passes(self) -> int:
        return sum(self.more) + self.directions


@dataclass(frozen=True)
class Planner:
    """The goal from where a measurement stands.

    Args:
        wanted: the half-width, above 0.
        level: of the next look's interval.
        left: passes of the budget.
        directions: all of G's, where it can still be made exact; otherwise 0.
    """

    wanted: float
    level: float
    left: int
    directions: int = 0

    def until_met(self, parts: Sequence[Sampled]) -> Plan:
        """Whatever the budget, from samples alone."""
        counts = counts_for(parts, self.wanted, self.level)
        more = counts - np.array([part.taken for part in parts])
        return Plan([int(count) for count in more], 0, float(more @ np.array([part.cost for part in parts])))

    def cheapest(self, parts: Sequence[Sampled]) -> Plan:
        """With all directions of G, if the budget allows them and they are at most twice the work; else with draws."""
        plan = self.until_met(parts)
        if 0 < self.directions <= self.left:
            rest = self.until_met([replace(parts[0], variance=0.0), *parts[1:]])
            if rest.work + self.directions <= _EXACT_PAYS * plan.work:
                return replace(rest, directions=self.directions, work=rest.work + self.directions)
        return plan

    def affordable(self, parts: Sequence[Sampled]) -> Plan:
        """As far as the budget goes and an early variance can be trusted: what is left goes where it does most."""
        planner, taken = self, sum(part.taken for part in parts)
        while (plan := planner.cheapest(parts)).passes > self.left:
            coarser = math.sqrt((taken + plan.passes) / (taken + self.left))  # counts are about as 1 / wanted^2
            planner = replace(planner, wanted=planner.wanted * max(coarser, _COARSER))
        more = [min(count, (_GROWTH - 1) * part.taken) for count, part in zip(plan.more, parts, strict=True)]
        if more[0] == 1:  # a draw by itself has no variance
            more[0] = 2 if plan.passes < self.left else 0
        return replace(plan, more=more)
