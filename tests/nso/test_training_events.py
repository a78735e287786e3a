"""A history as TensorBoard events: every number once, at its step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard")

from hessdiag.nso.events import Events

HISTORY: list[dict[str, Any]] = [
    {"epoch": 0, "step": 0, "loss": 2.0, "monitored": "4 of 9 training examples (seed 0)"},
    {"epoch": 1, "step": 5, "loss": 1.5, "trace": 7.0, "trace_interval": [6.0, 8.0]},
    {"epoch": 2, "step": 10, "loss": 1.0},
]


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_row_once(tmp_path: Path) -> None:
    events = Events(tmp_path)
    for rows in (1, 1, 2, 3, 3):
        events.write(HISTORY[:rows])
    assert written(tmp_path) == {"loss": [(0, 2.0), (5, 1.5), (10, 1.0)], "trace": [(5, 7.0)]}


def test_a_run_that_goes_on_repeats_nothing(tmp_path: Path) -> None:
    Events(tmp_path).write(HISTORY)
    Events(tmp_path).write(HISTORY)
    assert written(tmp_path)["loss"] == [(0, 2.0), (5, 1.5), (10, 1.0)]
