"""The trace by whatever is cheapest: the Gauss-Newton split where there is one, else what a pilot chooses."""

from __future__ import annotations

from dataclasses import replace

from hessdiag.curvature.gauss_newton import NoSplit
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.estimators.choice import fallback_steps
from hessdiag.estimators.split_trace import split_or_whole_steps
from hessdiag.estimators.steps import Steps
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.results import TraceResult
from hessdiag.spec.names import FEWEST_MATVECS

__all__ = ["auto_steps"]


def auto_steps(H: SymmetricOperator, goal: TraceGoal) -> Steps[TraceResult]:
    """The Gauss-Newton split where the loss is convex in the outputs; elsewhere XTrace, Hutch++, deflation or none.

    The result's ``method`` is what was taken, its ``reason`` why.
    """
    split = H.split
    why_not = split.reason or f"max_matvecs {goal.max_matvecs} is too few for the Gauss-Newton split"
    if split.available and goal.max_matvecs >= FEWEST_MATVECS["gauss-newton"]:
        try:
            split_result = yield from split_or_whole_steps(H, goal)
            return replace(split_result, reason=_joined("the loss is convex in the outputs", split_result.reason))
        except NoSplit as found:
            why_not = str(found)
    result = yield from fallback_steps(H, goal)
    return replace(result, reason=_joined(f"no Gauss-Newton split: {why_not}", result.reason))


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)
