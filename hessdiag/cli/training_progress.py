"""A training run as it goes, on stderr: the history so far, and a bar with the loss and the time left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hessdiag.reports import terminal
from hessdiag.reports.console import stderr_console
from hessdiag.reports.numbers import number, percent

if TYPE_CHECKING:
    from hessdiag.nso.loop import Progress as Step
    from hessdiag.results import Report

__all__ = ["TrainingShown", "training_progress"]

_AT_MOST = 12  # rows of the history below each other while the run goes on


class TrainingShown:
    """Told of every step, and of the audit at the end; nothing is drawn without a bar."""

    def __init__(self, live: Live | None, bar: Progress | None, epochs: int) -> None:
        self._live, self._bar, self._epochs = live, bar, epochs
        self._task = bar.add_task("", total=None, loss="") if bar is not None else None
        self._rows = 0

    def step(self, progress: Step) -> None:
        """A step is made, or an epoch is over."""
        if self._bar is None or self._task is None or self._live is None:
            return
        done = progress.epoch * progress.minibatches + progress.minibatch
        epoch = min(progress.epoch + 1, self._epochs)
        self._bar.update(
            self._task,
            completed=done,
            total=self._epochs * progress.minibatches,
            description=f"epoch {epoch}/{self._epochs}",
            loss=_state(progress),
        )
        if len(progress.history) != self._rows:
            self._rows = len(progress.history)
            self._live.update(Group(self._table(progress.history), self._bar))

    def audit(self, report: Report, section: str) -> None:
        """The audit has begun a section."""
        if self._bar is None or self._task is None or not section:
            return
        self._bar.remove_task(self._task)  # a total that is known once cannot be unknown again
        self._task = self._bar.add_task(f"audit: {section}", total=None, loss="")

    def end(self) -> None:
        """Take it off the screen."""
        if self._live is not None:
            self._live.stop()

    def _table(self, history: list[dict[str, Any]]) -> Any:
        return terminal.render_training(history[-_AT_MOST:])


def _state(progress: Step) -> str:
    """The minibatch's loss, and the accuracy as it was after the last epoch."""
    shown = [] if math.isnan(progress.loss) else [f"loss {number(progress.loss, 4)}"]
    last = progress.history[-1] if progress.history else {}
    accuracy = last.get("validation_accuracy", last.get("accuracy"))
    return ", ".join(shown if accuracy is None else [*shown, f"accuracy {percent(accuracy)}"])


@contextmanager
def training_progress(quiet: bool, epochs: int) -> Iterator[TrainingShown]:
    """Draw while the body runs; nothing where stderr is no terminal, or ``quiet``."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield TrainingShown(None, None, epochs)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    bar = Progress(*columns, console=console)
    with Live(bar, console=console, transient=True, refresh_per_second=8) as live:
        yield TrainingShown(live, bar, epochs)
