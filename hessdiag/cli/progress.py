"""A progress bar with the time left, on stderr, drawn from the problem's meter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hessdiag.cost import Meter
from hessdiag.reports.console import stderr_console

__all__ = ["Stages", "progress"]


class Stages(Protocol):
    """Told what is under way whenever that changes, as "eigenvalues, trace"; "" ends it."""

    def __call__(self, stage: str, meter: Meter | None = None) -> None:
        """Show ``stage``; its passes are read off ``meter``."""
        ...


def _silent(stage: str, meter: Meter | None = None) -> None:
    pass


@contextmanager
def progress(quiet: bool) -> Iterator[Stages]:
    """Draw a bar for the running stage while the body runs; nothing where stderr is no terminal, or ``quiet``."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield _silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[passes]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Drawn(bar)


class _Drawn:
    """One bar. It goes on when some of what is under way is finished, and begins anew with something new."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._under_way: set[str] = set()
        self._begun_at = 0.0

    def __call__(self, stage: str, meter: Meter | None = None) -> None:
        under_way = set(stage.split(", "))
        if self._task is not None and under_way <= self._under_way:
            self._bar.update(self._task, description=stage)
            self._under_way = under_way
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if not stage:
            return
        self._task, self._under_way = self._bar.add_task(stage, total=None, passes="", left=""), under_way
        if meter is not None:
            self._begun_at = meter.read().passes
            meter.watcher = self._update

    def _update(self, meter: Meter) -> None:
        if self._task is None:
            return
        done = meter.read().passes - self._begun_at
        expected = max(meter.expected_passes - self._begun_at, done)
        passes = f"{done:,.0f}/{expected:,.0f} passes"
        self._bar.update(self._task, completed=done, total=expected or None, passes=passes, left="left")
