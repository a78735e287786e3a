"""Ways to provoke errors: each a title, and a function that lays out files and returns the program's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiny

TRACE = ("trace", "audit.yaml", "--quiet")
MODEL = "class_path: model.py:build"
OUTER = """\
def outer():
    return nn.ModuleDict({"inner": build()})


def tied():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    return nn.Sequential(first, second)
"""


@dataclass(frozen=True)
class Case:
    """One error.

    Attributes:
        prepare: lays out files in an empty folder; returns the program's arguments, or None for those of a spec.
        varying: a regular expression of what a library says, which differs from release to release.
        needs: the packages without which it cannot be provoked.
        free: bytes of memory that seem to be left; None: as many as there are.
    """

    title: str
    prepare: Callable[[Path], Sequence[str] | None]
    varying: str | None = None
    needs: tuple[str, ...] = ()
    free: int | None = None


FAMILIES: dict[str, list[Case]] = {}


def provoke(
    family: str,
    title: str,
    prepare: Callable[[Path], Any],
    *,
    varying: str | None = None,
    needs: str = "",
    free: int | None = None,
) -> None:
    """Add a case to a family; what ``prepare`` returns counts only where it is a tuple of arguments."""

    def prepared(folder: Path) -> Sequence[str] | None:
        arguments = prepare(folder)
        return arguments if isinstance(arguments, tuple) else None

    FAMILIES.setdefault(family, []).append(Case(title, prepared, varying, tuple(needs.split()), free))


def write_spec(folder: Path, data: str, model: str = MODEL, loss: str = "cross_entropy") -> None:
    """A spec in three lines; the data's are a line's worth of keys."""
    (folder / "model.py").write_text(f"{tiny.MODEL}\n\n{OUTER}")
    (folder / "audit.yaml").write_text(f"model: {{{model}}}\ndata: {{{data}}}\nloss: {loss}\n")


def write_arrays(folder: Path) -> None:
    np.savez(folder / "data.npz", **tiny.arrays())


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def of_checkpoint(
    title: str,
    save: Callable[[Path], Any],
    *options: str,
    family: str = "checkpoints",
    model: str = "",
    loss: str = "cross_entropy",
    command: Sequence[str] = TRACE,
    class_path: str | None = "model.py:build",
    **about: Any,
) -> None:
    """A checkpoint, which ``save`` writes under the name that it is given."""

    def prepare(folder: Path) -> tuple[str, ...]:
        keys = [f"class_path: {class_path}"] if class_path else []
        keys += ["checkpoint: saved", *filter(None, [model])]
        write_spec(folder, "format: npz, path: data.npz, inputs: x, targets: y", ", ".join(keys), loss)
        write_arrays(folder)
        save(folder / "saved")
        return (*command, *options)

    provoke(family, title, prepare, **about)


def of_data(
    title: str,
    data: str,
    files: Mapping[str, bytes | str] | Callable[[Path], Any],
    *options: str,
    family: str,
    model: str = MODEL,
    loss: str = "cross_entropy",
    **about: Any,
) -> None:
    """Data: what stands under ``data:``, and the files, or what writes them into a folder."""

    def prepare(folder: Path) -> tuple[str, ...]:
        write_spec(folder, data, model, loss)
        if callable(files):
            files(folder)
        else:
            write_files(folder, files)
        return (*TRACE, *options)

    provoke(family, title, prepare, **about)
