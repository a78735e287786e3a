"""Checkpoints as users have them: read through the registry, with the inner tensors or the message as the outcome."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints import Contents, Reading, identify, load_into
from hessdiag.results import CheckpointInfo


def contents(path: Path, **reading: Any) -> Contents:
    return identify(path).read(path, Reading(**reading))


def emptied(model: nn.Module | None = None) -> nn.Module:
    model = model or tiny.network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def load(path: Path, model: nn.Module | None = None, **reading: Any) -> tuple[nn.Module, CheckpointInfo]:
    return load_into(emptied(model), path, path.name, Reading(**reading))


def holds(model: nn.Module, tensors: dict[str, Tensor] | None = None) -> bool:
    found = model.state_dict()
    return all(torch.equal(found[name], item) for name, item in (tensors or tiny.weights()).items())


def refusal(path: Path, model: nn.Module | None = None, **reading: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, model, **reading)
    words = str(caught.value)
    assert words.startswith(path.name)
    assert caught.value.exit_code == 3
    assert "\n" not in words
    return words


def moved(tensors: dict[str, Tensor], by: float = 1.0) -> dict[str, Tensor]:
    """Other weights of the same shapes."""
    return {name: item + by for name, item in tensors.items()}


def prefixed(prefix: str, tensors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {f"{prefix}{name}": item for name, item in (tensors or tiny.weights()).items()}


class Calls:
    """Unpickled, it calls what it was made with."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(marker: Path) -> dict[str, tuple[Calls, str]]:
    """What would leave a file, by the global that a refusal must name."""
    return {
        "system": (Calls(os.system, f"touch {marker}"), "posix.system"),
        "open": (Calls(open, str(marker), "w"), "io.open"),
        "eval": (Calls(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"),
        "touch": (Calls(Path.touch, Calls(type(marker), str(marker))), "builtins.getattr"),
    }
