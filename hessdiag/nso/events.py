"""A run's history as TensorBoard events, beside the run's other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hessdiag.loading.extras import import_extra

__all__ = ["Events"]


class Events:
    """Writes each row of a history once; the rows of a run that goes on take the place of what came after them.

    Args:
        folder: of the events.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import_extra("tensorboard", "--tensorboard")
        self._writer_of = import_extra("torch.utils.tensorboard", "--tensorboard").SummaryWriter
        self._folder, self._written = folder, 0
        self._writer: Any = None

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """The rows that are new."""
        for row in history[self._written :]:
            if self._writer is None:
                self._writer = self._writer_of(str(self._folder), purge_step=row["step"])
            for key, value in row.items():
                if isinstance(value, (int, float)) and key not in ("epoch", "step"):
                    self._writer.add_scalar(key, value, row["step"])
            self._writer.flush()
        self._written = len(history)
