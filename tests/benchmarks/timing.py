"""Times side by side: on a shared machine only ratios of neighbours can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

Times = Mapping[str, list[float]]


def paired(contenders: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> Times:
    """Seconds of each contender in each round, in A B A B order, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            spent = seconds(work, device)
            if turn:
                times[name].append(spent)
    return times


def ratio(times: Times, one: str, other: str) -> float:
    """The median over rounds of the time of ``one`` over that of ``other``."""
    return median(a / b for a, b in zip(times[one], times[other], strict=True))


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Of one run."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
