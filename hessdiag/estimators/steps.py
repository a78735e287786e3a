"""Estimators as generators of requests, and the runners that serve them pass by pass.

An estimator yields what it wants from the next pass over the data and is sent the answer. Several of them run
together: one pass serves the requests of all, so the data are read once a round and a batch's graph is built once.
What an estimator is sent does not depend on who runs beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from hessdiag.cost import Cost
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Request, Served, TimeLeft

__all__ = ["OutOfTime", "Steps", "run", "run_together"]

T = TypeVar("T")
Steps = Generator[Request | tuple[Request, ...], Any, T]
"""An estimator: it yields requests, is sent their answers, and returns a record with a field ``cost``.

For a tuple of requests it is sent the list of their answers, from one pass."""


class OutOfTime(Exception):  # noqa: N818 (a signal, no error)
    """Thrown into an estimator at a request that there is no time for: end with what is there.

    Vital requests (the product that confirms an eigenvalue, say) are served all the same.
    """


def run(H: SymmetricOperator, steps: Steps[T]) -> T:
    """Serve one estimator until it is done."""
    return cast(T, run_together(H, {"": steps})[""])


def run_together(
    H: SymmetricOperator,
    estimators: Mapping[str, Steps[Any]],
    *,
    finished: Callable[[str, Any], None] = lambda name, result: None,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Serve several estimators, each round by one pass, until all are done.

    Args:
        H: what serves.
        estimators: by name.
        finished: told of each result as it comes.
        deadline: by ``time.perf_counter``; an estimator whose next request would come too late, by the time that
            its earlier ones took, is thrown :class:`OutOfTime` unless it asks for something vital.

    Returns:
        The results by name, each with its own cost.
    """
    running = {name: _Running(steps) for name, steps in estimators.items()}
    results: dict[str, Any] = {}
    while running:
        left = math.inf if deadline is None else deadline - time.perf_counter()
        for name, one in list(running.items()):
            if one.advance(left):
                results[name] = one.result
                del running[name]
                finished(name, one.result)
        wanted = [request for one in running.values() for request in one.requests]
        H.meter.expect(sum(_passes(request) for request in wanted))
        served = iter(H.serve(wanted))
        for one in running.values():
            one.take([next(served) for _ in one.requests])
    return results


def _passes(request: Request) -> float:
    return request.passes + request.expect


@dataclass
class _Running:
    """An estimator under way: what it wants, and what it has cost so far."""

    steps: Steps[Any]
    wanted: Request | tuple[Request, ...] = ()
    result: Any = None
    cost: Cost = Cost()
    _answer: Any = None

    @property
    def requests(self) -> tuple[Request, ...]:
        return self.wanted if isinstance(self.wanted, tuple) else (self.wanted,)

    def take(self, served: list[Served]) -> None:
        answers = [one.answer for one in served]
        self._answer = answers if isinstance(self.wanted, tuple) else answers[0]
        self.cost = sum((one.cost for one in served), self.cost)

    def advance(self, left: float) -> bool:
        """Send the answer and get the next request, which may take ``left`` seconds; whether the estimator is done."""
        try:
            self.wanted = self.steps.send(self._answer)
            while isinstance(self.wanted, TimeLeft):
                self.wanted = self.steps.send(left / self._seconds_per_pass if self._seconds_per_pass else math.inf)
            if left <= self._seconds_ahead() and not any(request.vital for request in self.requests):
                self.wanted = self.steps.throw(OutOfTime())
        except StopIteration as stop:
            self.result = replace(stop.value, cost=self.cost)
            return True
        self._answer = None
        return False

    def _seconds_ahead(self) -> float:
        """What the next requests will take, as fast as those before them; 0 before the first."""
        return sum(request.passes for request in self.requests) * self._seconds_per_pass

    @property
    def _seconds_per_pass(self) -> float:
        """So far; 0 before the first."""
        return self.cost.seconds / self.cost.passes if self.cost.passes else 0.0
