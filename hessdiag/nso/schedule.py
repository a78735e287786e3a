"""The learning rate as a function of where a run stands: no state that a resumed run could lose."""

from __future__ import annotations

import math
from collections.abc import Callable

from hessdiag.spec.train import CosineSchedule, Schedule, StepSchedule

__all__ = ["learning_rate"]

Rate = Callable[[float], float]


def learning_rate(schedule: Schedule, lr: float, epochs: int) -> Rate:
    """The rate at ``progress``, in epochs from the start: 2.5 is half-way through the third.

    ``constant``: lr. ``step``: lr * factor^floor(progress / every). ``cosine``: lr * (floor + (1 - floor)
    (1 + cos(pi t)) / 2), t from 0 to 1 between the end of a linear warm-up and the end of the run.
    """
    if isinstance(schedule, StepSchedule):
        return lambda progress: lr * schedule.factor ** math.floor(progress / schedule.every)
    if isinstance(schedule, CosineSchedule):
        return lambda progress: lr * _cosine(schedule, progress, epochs)
    return lambda progress: lr


def _cosine(schedule: CosineSchedule, progress: float, epochs: int) -> float:
    if progress < schedule.warmup:
        return progress / schedule.warmup
    share = (progress - schedule.warmup) / max(epochs - schedule.warmup, 1e-9)
    return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * min(share, 1))) / 2
