"""The folder of a training run: what is in it, written so that a kill at any moment loses nothing but time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from hessdiag.errors import CheckpointError, UsageError
from hessdiag.files import replaced, write_atomically

__all__ = ["RunFolder", "State"]

_FORMAT = 1


@dataclass
class State:
    """All that a run needs to go on from between two steps, beside its spec.

    Attributes:
        epoch, minibatch: of the next step, from 0.
        model, optimizer: their state dicts.
        random: states of torch's generators, by device.
        loss_sum, loss_weight: of the present epoch's steps.
        history: one row for each epoch that is over, and one before the first.
        best: the lowest validation loss so far.
        waited: epochs since then.
        spent, dearest: of the monitor's budget.
    """

    epoch: int
    minibatch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    random: dict[str, Tensor]
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    waited: int = 0
    spent: float = 0.0
    dearest: float = 0.0


class RunFolder:
    """``last.safetensors``, ``best.safetensors``, ``state.pt``, ``spec.yaml``, ``history.jsonl``, ``report.json``.

    What follows from the state is written before it: a run that is killed in between goes on from the state before
    and writes the same once more.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    @property
    def _state(self) -> Path:
        return self.path / "state.pt"

    @property
    def _spec(self) -> Path:
        return self.path / "spec.yaml"

    def refuse(self, spec: str, *, resume: bool) -> None:
        """Say what speaks against a run of ``spec`` here, before anything is loaded.

        Raises:
            UsageError: a run is there that is not to go on, or one of another spec; or the folder holds other things.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path}: found a file, expected a new or empty folder")
        before = self._spec.read_text(encoding="utf-8") if self._spec.is_file() else None
        if before is None and self.path.is_dir() and any(self.path.iterdir()):
            raise UsageError(f"--out {self.path}: found a folder with other things in it, expected a new or empty one")
        if before is not None and not resume:
            raise UsageError(f"--out {self.path}: found a run there: --resume goes on with it; or name another folder")
        if before is not None and before != spec:
            raise UsageError(
                f"--resume: the run in {self.path} has another spec ({_first_difference(before, spec)}): name another "
                "folder for this one"
            )

    def begin(self, spec: str, *, resume: bool) -> State | None:
        """Make the folder for a run of ``spec``, or find the state that it left.

        Raises:
            UsageError: as :meth:`refuse`.
            CheckpointError: its state is damaged.
        """
        self.refuse(spec, resume=resume)
        write_atomically(self._spec, spec)
        return self._load() if self._state.is_file() else None

    def save(self, state: State) -> None:
        """Write the state."""
        with replaced(self._state) as beside:
            torch.save({"format": _FORMAT, **vars(state)}, beside)

    def save_weights(self, model: nn.Module, *paths: Path) -> None:
        """Write the model's weights, each tensor once."""
        for path in paths:
            with replaced(path) as beside:
                save_model(model, str(beside))

    def save_history(self, rows: list[dict[str, Any]]) -> None:
        """One line for each row."""
        lines = [json.dumps(row, allow_nan=False) for row in rows]
        write_atomically(self.path / "history.jsonl", "\n".join([*lines, ""]) if lines else "")

    def _load(self) -> State:
        try:
            content = torch.load(self._state, map_location="cpu", weights_only=True)
            if content.pop("format") != _FORMAT:
                raise ValueError("it was written by another version")
            return State(**content)
        except Exception as error:  # whatever torch, zipfile and pickle raise
            raise CheckpointError(
                f"{self._state}: cannot be read ({type(error).__name__}: {error}): copy it again, or begin the run "
                "anew in another folder"
            ) from error


def _first_difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    for was, is_now in zip(old, new, strict=False):
        if was != is_now:
            return f"{was.strip()!r} there, {is_now.strip()!r} here"
    return f"{len(old)} lines there, {len(new)} here"
