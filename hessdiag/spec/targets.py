"""What a TARGET stands for: a spec, a trained run's folder, or a checkpoint with what the command line says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hessdiag.errors import Diagnostic, UsageError
from hessdiag.spec.architecture import default_loss
from hessdiag.spec.compose import compose
from hessdiag.spec.files import read_spec
from hessdiag.spec.references import split_reference
from hessdiag.spec.scalars import show
from hessdiag.spec.tree import BROKEN, Node, Place

__all__ = ["CheckpointTarget", "RunTarget", "SpecTarget", "Target", "find_target", "put_default_loss"]


@dataclass(frozen=True)
class SpecTarget:
    """A spec file."""

    path: Path

    @property
    def folder(self) -> Path:
        """Where relative names in it start."""
        return self.path.absolute().parent

    def tree(self) -> tuple[Node | None, list[Diagnostic]]:
        """The spec as a tree, None where it is no mapping, and the faults of reading it."""
        return _mapping(self.path, "a mapping with the keys model and data")


@dataclass(frozen=True)
class RunTarget:
    """A folder that ``hessdiag nso train`` wrote: its resolved spec, its last weights, the loss unsmoothed."""

    path: Path

    @property
    def folder(self) -> Path:
        """Where relative names in its spec start."""
        return self.path.absolute()

    def tree(self) -> tuple[Node | None, list[Diagnostic]]:
        """The spec as a tree, None where it is no mapping, and the faults of reading it."""
        root, faults = SpecTarget(self.path / "spec.yaml").tree()
        if root is None:
            return None, faults
        model, smoothing = root.child("model"), root.find("loss", "label_smoothing")
        if model is not None and isinstance(model.value, dict):
            brings_its_network = self._brings_its_network(model)
            model.value["trained" if brings_its_network else "checkpoint"] = _node("last.safetensors", model.place)
            if not brings_its_network:
                model.value.pop("weights", None)  # which of the initial checkpoint's: the last are one set
        if smoothing is not None:
            smoothing.value = 0
        return root, faults

    def _brings_its_network(self, model: Node) -> bool:
        """Whether the initial checkpoint, an adapter say, makes the network what the last weights fit into."""
        checkpoint = model.child("checkpoint")
        if model.child("class_path") is None:
            return True
        path = checkpoint.value if checkpoint is not None else None
        return isinstance(path, str) and (self.folder / path / _ADAPTER).is_file()


@dataclass(frozen=True)
class CheckpointTarget:
    """A checkpoint, with what ``--model``, ``--data`` and ``--loss`` say of it.

    Relative names in the data's file start from that file's folder, those on the command line from the current one.
    """

    path: Path
    data: Path
    model: str | None = None
    loss: str | None = None

    @property
    def folder(self) -> Path:
        """Where relative names in the data's file start."""
        return self.data.absolute().parent

    def tree(self) -> tuple[Node | None, list[Diagnostic]]:
        """The spec as a tree, None where the data's file holds no mapping, and the faults of reading it."""
        data, faults = _mapping(self.data, "a mapping as under `data:` of a spec, with the key format")
        if data is None:
            return None, faults
        if "format" not in data.value and data.child("data") is not None:
            found = "found a whole spec, expected what stands under its `data:` alone"
            return None, [*faults, data.place.fault(f"{found}; or give the spec itself with --checkpoint {self.path}")]
        here = Place(str(self.path))
        model = {"checkpoint": _node(str(self.path.absolute()), here)}
        if self.model is not None:
            model["class_path"] = _node(_from_here(self.model), Place(f"--model {self.model}"))
        content = {"model": Node(model, here, here), "data": data}
        if self.loss is not None:
            content["loss"] = _node(_from_here(self.loss), Place(f"--loss {self.loss}"))
        return Node(content, here, here), faults


Target = SpecTarget | RunTarget | CheckpointTarget
_ADAPTER = "adapter_config.json"  # of a PEFT folder
_SPECS = (".yaml", ".yml")


def find_target(path: Path, *, model: str | None = None, data: Path | None = None, loss: str | None = None) -> Target:
    """Say what a path stands for.

    Raises:
        UsageError: a checkpoint without ``data``, or a spec with options that only a checkpoint takes.
    """
    if data is not None:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder (looked in {path.absolute().parent})")
        if path.suffix.lower() in _SPECS and path.is_file():
            raise UsageError(
                f"--data {data}: goes with a checkpoint, but {path} is by its name a spec, which says itself what "
                "it is measured on (--set data.path=... overrides it)"
            )
        return CheckpointTarget(path, data, model, loss)
    if (path / "last.safetensors").is_file() and (path / "spec.yaml").is_file():
        return RunTarget(path)
    if path.is_dir():
        raise UsageError(
            f"{path}: found a folder, expected a spec (a YAML file), a folder that `hessdiag nso train` wrote, or a "
            "model's folder with --data DATA.yaml, which says what to measure it on"
        )
    for option, value in (("--model", model), ("--loss", loss)):
        if value is not None:
            raise UsageError(
                f"{option} {value}: goes with a checkpoint and --data DATA.yaml; a spec says it itself "
                f"(--set {'model.class_path' if option == '--model' else 'loss'}=... overrides it)"
            )
    return SpecTarget(path)


def put_default_loss(root: Node, folder: Path) -> None:
    """Where neither a loss nor a factory is named, the checkpoint's folder may say what it was trained with."""
    node = root.find("model", "checkpoint")
    if "loss" in root.value or root.find("model", "class_path") or node is None or not isinstance(node.value, str):
        return
    try:
        name = default_loss(folder / Path(node.value).expanduser())
    except RuntimeError:  # "~somebody"
        return
    if name is not None:
        root.value["loss"] = _node(name, node.place)


def _mapping(path: Path, expected: str) -> tuple[Node | None, list[Diagnostic]]:
    """A YAML file whose top is a mapping; None, and a fault, where it is not."""
    root, faults = compose(read_spec(path), str(path))
    if root is None or isinstance(root.value, dict):
        return root, faults
    if root.value is BROKEN:
        return None, faults
    if root.value is None:  # after comments, PyYAML's place is the end of the file
        return None, [*faults, Diagnostic(str(path), 1, 1, f"found an empty file; expected {expected}")]
    return None, [*faults, root.place.fault(f"found {show(root.plain())} at the top; expected {expected}")]


def _node(value: str, place: Place) -> Node:
    return Node(value, place, place)


def _from_here(reference: str) -> str:
    """``file.py:name`` with the file found from the current folder."""
    parts = split_reference(reference)
    return reference if parts is None else f"{Path(parts[0]).expanduser().absolute()}:{parts[1]}"
