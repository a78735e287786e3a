"""The trace by the Gauss-Newton split: Tr[H] = Tr[G] + Tr[R], each part by the means that suit it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hessdiag.curvature.gauss_newton import NoSplit
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Request, ResidualBlocks, ResidualDiagonal, TimeLeft
from hessdiag.errors import UsageError
from hessdiag.estimators.allocation import Sampled, half_width, sets_apart
from hessdiag.estimators.hutchinson import hutchinson_steps
from hessdiag.estimators.split_parts import GaussNewtonTrace, PooledForms
from hessdiag.estimators.split_plans import Plan, Planner
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.trace_goal import Traced, TraceGoal
from hessdiag.results import TracePart, TraceResult

__all__ = ["split_or_whole_steps", "split_steps"]

_FIRST_DRAWS = 2
_FIRST_DEGREES = 8  # of freedom of R's first variance, which the next look is planned by
_SPENT_AT_A_LOOK = 1 / 3  # of the error probability that is left
_AT_ONCE = 16  # samples of a part between two chances to stop
_PILOT_PAYS = 24  # products: from here on it is worth knowing where R is large
_PILOT_SHARE = 4  # times its own products: so many must be ahead
_COMPARED_IN = 32  # passes ahead for each one by which R and H are compared


def split_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """Tr[H] = Tr[G] + Tr[R] of the Gauss-Newton split, for a loss that is convex in the outputs.

    Tr[G] is the mean squared norm of examples' gradients along random directions of the outputs, fresh for every
    unit of every example; where all directions take at most twice that work, it is exact. Where R has no diagonal
    (the network is piecewise linear in every parameter tensor) this is the trace. Elsewhere Tr[R] is the mean of
    quadratic forms with a fresh Rademacher probe for every minibatch. If many are needed, a pilot on a few examples
    finds where R is large, and probes live on sets of tensors apart: they never meet the blocks between the sets,
    nor tensors whose own block is zero, and sets with more variance get more of them.

    The interval is Student's, on the degrees of freedom of all parts together (Welch's). The data are fixed: it is
    the draws and probes that are random. Each look that could be the last spends a third of the error probability that
    is left, so that all of them hold together with the goal's confidence; from there the work to the next is planned.

    Choose it wherever the loss allows it. To 1 % of a trained network's trace it takes about 10 gradients and, if R
    has a diagonal, 3 to 30 products, where Hutchinson's method takes about 2,000.
    Cost: a gradient for each draw, a product for each probe; both count towards ``max_matvecs``.

    Raises:
        UsageError: there is no split, and why.
        NoSplit: the loss is not convex in one of the batches.
    """
    job = _Split(H, goal)
    yield from job.measured()
    return job.result()


def split_or_whole_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """:func:`split_steps`, but plain Hutchinson where a pilot shows that H is less work than R."""
    job = _Split(H, goal, compare=True)
    yield from job.measured()
    if not job.whole_is_less_work:
        return job.result()
    left = replace(goal, max_matvecs=max(goal.max_matvecs - job.passes, 2))
    whole = yield from hutchinson_steps(H, left)
    reason = "the residual part of the Hessian varies more between probes than the whole does"
    return replace(whole, matvecs=whole.matvecs + job.products, reason=reason)


class _Split:
    """One measurement under way."""

    def __init__(self, H: SymmetricOperator, goal: TraceGoal, *, compare: bool = False) -> None:
        split = H.split
        if not split.available:
            raise UsageError(f"method: found gauss-newton, but {split.reason}: choose auto")
        self._H, self._goal, self._compare = H, goal, compare
        self._columns = split.columns
        self._gauss = GaussNewtonTrace(len(H.groups), goal.seed)
        self._residual: list[PooledForms] = []
        self._found: list[str] = []
        self._error_left = 1 - goal.confidence
        self._last_pass = math.inf
        self._late = self._pilot_done = False
        self.products = 0
        self.whole_is_less_work = False

    @property
    def passes(self) -> int:
        """Gradients and products spent."""
        return self._gauss.passes + self.products

    @property
    def _left(self) -> int:
        """Of the budget."""
        return self._goal.max_matvecs - self.passes

    @property
    def _left_in_time(self) -> int:
        """Of the budget and of the time."""
        return max(int(min(self._left, self._last_pass - self.passes)), 0)

    def measured(self) -> Steps[None]:
        """Sample until the goal is met, or nothing is left to try."""
        yield from self._first()
        self._look()
        while not self._ended():
            self._last_pass = self.passes + (yield TimeLeft())
            if (yield from self._pilot()):
                self._look()  # the parts are others now
                continue
            plan = self._planner.affordable(self._sampled)
            if not plan.passes:
                break
            yield from self._carry_out(plan)
            self._look()

    # -- what is known -------------------------------------------------------------------------------------

    @property
    def _parts(self) -> list[GaussNewtonTrace | PooledForms]:
        return [self._gauss, *self._residual]

    @property
    def _value(self) -> float:
        return sum((part.value for part in self._parts), 0.0)

    @property
    def _variance(self) -> float:
        return sum((part.variance for part in self._parts), 0.0)

    @property
    def _floor(self) -> float:
        """The half-width that rounding alone gives."""
        return self._goal.rounding(self._H) * sum(abs(part.value) for part in self._parts)

    @property
    def _wanted(self) -> float:
        """The half-width to plan for; of a value near zero not infinitely many samples' worth."""
        return max(self._goal.rtol * abs(self._value), self._floor, 1e-6 * math.sqrt(self._variance))

    @property
    def _next_level(self) -> float:
        return 1 - self._error_left * _SPENT_AT_A_LOOK

    def _look(self) -> None:
        sampled = self._sampled
        taken = np.array([one.taken for one in sampled])
        self._reach = half_width(sampled, taken, self._next_level)
        # Where the spread alone forbids to stop, the value is not looked at and no error probability spent.
        if half_width(sampled, taken, self._goal.confidence) <= self._wanted:
            self._error_left *= 1 - _SPENT_AT_A_LOOK

    def _ended(self) -> bool:
        given_up = self._late or self.whole_is_less_work
        return given_up or self._reach <= self._wanted or self._variance == 0

    def result(self) -> TraceResult:
        """The record."""
        reach = max(self._reach, self._floor)
        variances = sum(part.group_variances for part in self._parts)
        traced = Traced(
            self._value,
            math.sqrt(self._variance),
            (self._value - reach, self._value + reach),
            np.asarray(sum(part.group_values for part in self._parts)),
            np.sqrt(np.asarray(variances)),
        )
        probes = sum(part.taken for part in self._residual)
        found = self._goal.result(
            self._H,
            traced,
            method="gauss-newton",
            probes=probes,
            matvecs=self.products,
            reason="; ".join(self._found),
        )
        rest = self._value - self._gauss.value, self._variance - self._gauss.variance
        return replace(
            found,
            gauss_newton=TracePart(self._gauss.value, math.sqrt(self._gauss.variance), self._gauss.passes),
            residual=TracePart(rest[0], math.sqrt(rest[1]), self.products),
        )

    # -- samples -------------------------------------------------------------------------------------------

    def _first(self) -> Steps[None]:
        """Two draws, or all directions where there are no more; some probes where R has a diagonal."""
        exact = 0 < self._columns <= _FIRST_DRAWS
        draws = self._gauss.exactly(self._columns, vital=True) if exact else self._gauss.more(_FIRST_DRAWS, vital=True)
        sums, tensor = yield (draws, ResidualDiagonal(self._goal.seed))
        if isinstance(sums, NoSplit):
            raise sums
        self._gauss.take(sums, passes=self._columns if exact else _FIRST_DRAWS, exact=exact)
        if tensor is None:
            self._found.append(
                "the residual part has a zero diagonal: piecewise linear in every single tensor; "
                "the trace is the Gauss-Newton part's"
            )
            return
        everywhere = PooledForms(self._H, self._goal.rademacher(self._H), range(len(self._H.groups)))
        count = min(self._first_probes, self._left)
        everywhere.take((yield everywhere.more(count, vital=True)))
        self.products += count
        self._residual = [everywhere]

    @property
    def _first_probes(self) -> int:
        return 1 + -(-_FIRST_DEGREES // self._H.meter.batches_per_pass)

    def _carry_out(self, plan: Plan) -> Steps[None]:
        """Take the planned samples, some at a time, so that a deadline is kept."""
        more = list(plan.more)
        if plan.directions:
            answers = yield from self._ask(self._gauss.exactly(self._columns, expect=sum(more)))
            if answers is None:
                return
            self._gauss.take(answers[0], passes=self._columns, exact=True)
        while any(more):
            now = [left if left <= _AT_ONCE + 1 else _AT_ONCE for left in more]  # never one draw by itself
            more = [left - some for left, some in zip(more, now, strict=True)]
            if not (yield from self._take(now, expect=sum(more))):
                return

    def _take(self, counts: Sequence[int], expect: float = 0.0) -> Steps[bool]:
        """So many more samples of each part; False: there is no time."""
        asked = [(part, count) for part, count in zip(self._parts, counts, strict=True) if count]
        answers = yield from self._ask(*(part.more(count, expect=expect / len(asked)) for part, count in asked))
        if answers is None:
            return False
        self._take_in(asked, answers)
        return True

    def _take_in(self, asked: Sequence[tuple[GaussNewtonTrace | PooledForms, int]], answers: Sequence[Any]) -> None:
        for (part, count), answer in zip(asked, answers, strict=True):
            part.take(answer)
            self.products += count if isinstance(part, PooledForms) else 0

    def _ask(self, *requests: Request) -> Steps[list[Any] | None]:
        try:
            answers: list[Any] = yield requests
        except OutOfTime:
            self._late = True
            return None
        return answers

    # -- plans ---------------------------------------------------------------------------------------------

    @property
    def _sampled(self) -> list[Sampled]:
        return [part.sampled for part in self._parts]

    @property
    def _planner(self) -> Planner:
        directions = 0 if self._gauss.exact else self._columns
        return Planner(self._wanted, self._next_level, self._left, directions)

    @property
    def _products_ahead(self) -> int:
        """Of R, by what is known now, as far as budget and time go: no matter how far the next plan goes."""
        return min(sum(self._planner.until_met(self._sampled).more[1:]), self._left_in_time)

    # -- the pilot -----------------------------------------------------------------------------------------

    def _pilot(self) -> Steps[bool]:
        """Once, if R will take many products: find where it is large, and whether H would take fewer; whether now."""
        blocks = ResidualBlocks(self._goal.seed, most=1 + len(self._H.groups) / self._H.meter.batches_per_pass)
        least = max(_PILOT_PAYS, len(self._H.groups) / 2, _PILOT_SHARE * blocks.most)
        if self._pilot_done or self._products_ahead < least:
            return False
        self._pilot_done = True
        (everywhere,) = self._residual
        whole = PooledForms(self._H, self._goal.rademacher(self._H), everywhere.tensors, part="hessian")
        first = [(whole, everywhere.taken)] if self._compare else []
        answers = yield from self._ask(blocks, *(part.more(count) for part, count in first))
        if answers is None:
            return True
        self._take_in(first, answers[1:])
        self.products += math.ceil(answers[0].passes)
        squares = answers[0].squares.numpy()
        if self._compare and (yield from self._is_less(whole, squares)):
            self.whole_is_less_work = True
        elif not self._late and (sets := self._sets(squares)[0]):
            yield from self._apart(sets)
        return True

    def _is_less(self, whole: PooledForms, squares: np.ndarray) -> Steps[bool]:
        """Whether H is less work than the split; both have the same probes, so one sample compares the variances."""
        alone, split = self._alone_and_split(whole, squares)
        ahead = min(alone.passes, split.passes, self._left_in_time)
        more = min(ahead // _COMPARED_IN, _AT_ONCE) - whole.taken
        if more > 0:
            both = [(whole, more), (self._residual[0], more)]
            answers = yield from self._ask(*(part.more(more) for part, more in both))
            if answers is None:
                return False
            self._take_in(both, answers)
            alone, split = self._alone_and_split(whole, squares)
        if min(alone.passes, split.passes) <= self._left_in_time:
            return alone.work < split.work
        return alone.passes < split.passes  # neither gets there: whatever comes closer

    def _alone_and_split(self, whole: PooledForms, squares: np.ndarray) -> tuple[Plan, Plan]:
        """What it takes from here on H, and on G and R with probes on sets of tensors."""
        everywhere = self._residual[0].sampled
        residual = replace(everywhere, variance=self._sets(squares)[1] * everywhere.variance)
        split = self._planner.cheapest([self._gauss.sampled, residual])
        return self._planner.until_met([whole.sampled]), split

    def _sets(self, squares: np.ndarray) -> tuple[list[list[int]], float]:
        """The sets of tensors that probes should live on, and their share of the work."""
        needed = self._planner.until_met([self._residual[0].sampled])
        probes = min(needed.passes + self._residual[0].taken, max(self._left_in_time, 1))
        return sets_apart(squares, self._first_probes, probes)

    def _apart(self, sets: list[list[int]]) -> Steps[None]:
        """Probes on sets of tensors from here on, in place of those on all of them."""
        draw = self._goal.rademacher(self._H)
        apart = [PooledForms(self._H, draw, some, first=self._residual[0].taken) for some in sets]
        answers = yield from self._ask(*(one.more(self._first_probes) for one in apart))
        if answers is None:
            return
        self._take_in([(one, self._first_probes) for one in apart], answers)
        self._residual = apart
        where = "one set" if len(apart) == 1 else f"{len(apart)} sets"
        self._found.append(f"the residual part's probes live on {where} of tensors")
