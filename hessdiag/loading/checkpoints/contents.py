"""What a format is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

__all__ = ["Contents", "Format", "Glimpse", "Reading"]


@dataclass(frozen=True)
class Reading:
    """How a checkpoint is read.

    Attributes:
        trust: the person at the keyboard lets it run what it likes; never a spec's word.
        allowed_globals: dotted names that its pickle may call.
        weights: which weights, where it holds two sets.
        adapter: of an adapter, its own weights alone, or the whole network with them merged in.
        base: of an adapter, the folder of its base model; None: as it says itself.
        model: of an adapter, its base model where the spec has built it.
    """

    trust: bool = False
    allowed_globals: tuple[str, ...] = ()
    weights: Literal["model", "ema"] = "model"
    adapter: Literal["only", "merged"] = "only"
    base: Path | None = None
    model: nn.Module | None = None


@dataclass(frozen=True)
class Glimpse:
    """What a format is recognised by: the first bytes of a file, the records of a zip, the entries of a folder."""

    path: Path
    head: bytes = b""
    names: frozenset[str] = frozenset()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, not a file."""
        return self.path.is_dir()


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes:
        tensors: the weights that were asked for, by name.
        besides: what else is inside, by name, each in a few words: ``{"optimizer": "dict of 2"}``.
        module: the network itself, where the checkpoint holds one and may make it.
        format: a closer name than that of the family, as ``lightning`` among the state dicts.
    """

    tensors: Mapping[str, Tensor]
    besides: Mapping[str, str] = field(default_factory=dict)
    module: nn.Module | None = None
    format: str | None = None


def _itself(path: Path) -> list[Path]:
    return [path]


def _nothing(path: Path, reading: Reading) -> list[Path]:
    return []


@dataclass(frozen=True)
class Format:
    """A family of checkpoints.

    Attributes:
        name: as the report shows it.
        recognises: tells from a glimpse whether a checkpoint is of the family.
        read: the contents; raises CheckpointError where it is damaged, or refused.
        files: those that make up the weights, for the checkpoint's sha256.
        build: the network with its weights, where the family holds an architecture and ``read`` gives no module.
        builds_from: the files that ``build`` needs besides: a config, the base model of an adapter.
        on_a_model: ``build`` puts its weights on ``Reading.model`` where the spec has built one, as an adapter does;
            else what is read is fitted into that model.
    """

    name: str
    recognises: Callable[[Glimpse], bool]
    read: Callable[[Path, Reading], Contents]
    files: Callable[[Path], list[Path]] = _itself
    build: Callable[[Path, Reading], nn.Module] | None = None
    builds_from: Callable[[Path, Reading], list[Path]] = _nothing
    on_a_model: bool = False
