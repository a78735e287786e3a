"""Valid files of every format, to begin with: each small, and each measured as it is."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
from fuzz_program import read_folder

AUDIT = ("trace", "audit.yaml", "--quiet")


@dataclass(frozen=True)
class Seed:
    """Files that the program takes, the ways to call it, and which of them are changed.

    Attributes:
        files: by relative name.
        fuzzed: how the names of the files begin that are changed.
        ways: arguments of the program, several to choose from.
        modules: what the program imports for it, so that it need not be imported for each run.
    """

    files: Mapping[str, bytes]
    fuzzed: tuple[str, ...]
    ways: tuple[tuple[str, ...], ...] = (AUDIT,)
    modules: tuple[str, ...] = ()

    def may_change(self, name: str) -> bool:
        return name.startswith(self.fuzzed)


@dataclass(frozen=True)
class Recipe:
    """How a seed is made."""

    write: Callable[[Path], tuple[str, ...]]
    ways: tuple[tuple[str, ...], ...]
    modules: tuple[str, ...]
    needs: tuple[str, ...]

    def make(self, place: Path) -> Seed:
        """The seed, written into a folder that is read and thrown away; skipped where a library is not installed."""
        for name in self.needs:
            pytest.importorskip(name, reason=f"{name} is not installed")
        for module in self.modules:
            importlib.import_module(module)
        place.mkdir()
        fuzzed = self.write(place)
        files = read_folder(place)
        shutil.rmtree(place)
        return Seed(files, fuzzed, self.ways, self.modules)


RECIPES: dict[str, dict[str, Recipe]] = {"specs": {}, "checkpoints": {}, "data": {}}


def recipe(
    kind: str, *, needs: tuple[str, ...] = (), modules: tuple[str, ...] = (), ways: tuple[tuple[str, ...], ...] = ()
) -> Callable[[Callable[[Path], tuple[str, ...]]], Callable[[Path], tuple[str, ...]]]:
    """Register a function that writes a seed's files and returns how the names of those begin that are changed."""

    def register(write: Callable[[Path], tuple[str, ...]]) -> Callable[[Path], tuple[str, ...]]:
        RECIPES[kind][write.__name__] = Recipe(write, ways or WAYS[kind], modules, needs)
        return write

    return register


WAYS = {"specs": (AUDIT, ("validate", "audit.yaml")), "checkpoints": (AUDIT, ("inspect", "saved")), "data": (AUDIT,)}


def write_spec(folder: Path, model: str, data: str, loss: str = "cross_entropy") -> None:
    (folder / "audit.yaml").write_text(f"model: {{{model}}}\ndata: {{{data}}}\nloss: {loss}\n")


def write_arrays(folder: Path, checkpoint: str) -> None:
    """All but the checkpoint, whose name is ``saved``."""
    (folder / "model.py").write_text(tiny.MODEL)
    np.savez(folder / "data.npz", **tiny.arrays())
    write_spec(
        folder,
        f"class_path: model.py:build, checkpoint: {checkpoint}",
        "format: npz, path: data.npz, inputs: x, targets: y",
    )
