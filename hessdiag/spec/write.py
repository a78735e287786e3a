"""A spec written back as YAML, every key with its value, to lie in another folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hessdiag.spec.data import DataSpec, PythonData
from hessdiag.spec.losses import FunctionSpec
from hessdiag.spec.references import split_reference
from hessdiag.spec.scalars import TEXT, CoreResolver
from hessdiag.spec.schema import Spec

__all__ = ["moved", "spec_text"]

_MOST_ON_A_LINE = 5
_Name = Callable[[str], str]


def spec_text(spec: Spec) -> str:
    """The spec as YAML; a file with it, in the spec's folder, loads to an equal spec."""
    content = spec.model_dump()
    if spec.model.class_path is None:  # the one key that is omitted rather than null
        del content["model"]["class_path"]
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)


def moved(spec: Spec, folder: Path, *, absolute: bool = False) -> Spec:
    """The same spec, as it stands in another folder: its references lead to the same files.

    Args:
        spec: the spec; names in it start from its own folder.
        folder: where it is to lie; it need not exist yet.
        absolute: give every file its absolute name, rather than one relative to ``folder``.

    Raises:
        RuntimeError: a reference starts with the home folder of a user who does not exist.
    """

    def name(old: str) -> str:
        path = _real(spec.resolve(old))
        try:
            return (path if absolute else Path(os.path.relpath(path, os.path.realpath(folder)))).as_posix()
        except ValueError:  # another drive
            return path.as_posix()

    model, loss, train = spec.model, spec.loss, spec.train
    files = {key: name(old) for key in ("checkpoint", "base", "trained") if (old := getattr(model, key)) is not None}
    class_path = None if model.class_path is None else _moved_reference(model.class_path, name)
    if isinstance(loss, FunctionSpec):
        loss = loss.model_copy(update={"name": _moved_reference(loss.name, name)})
    validation = spec.validation_data()
    if validation is not None:
        train = train.model_copy(update={"validation": _moved_data(validation, name)})
    parts = {
        "model": model.model_copy(update={**files, "class_path": class_path}),
        "data": _moved_data(spec.data, name),
        "loss": loss,
        "train": train,
    }
    copy = spec.model_copy(update=parts)
    copy._folder = folder.absolute()
    return copy


def _moved_data(data: DataSpec, name: _Name) -> DataSpec:
    if isinstance(data, PythonData):
        return data.model_copy(update={"path": _moved_reference(data.path, name)})
    files = {key: name(old) for key in ("path", "tokenizer") if (old := getattr(data, key, None)) is not None}
    return data.model_copy(update=files)


def _moved_reference(reference: str, name: _Name) -> str:
    """``file.py:name`` with its file elsewhere; ``package.module.Name`` as it is."""
    parts = split_reference(reference)
    return reference if parts is None else f"{name(parts[0])}:{parts[1]}"


def _real(path: Path) -> Path:
    """The absolute path without links above the file: ".." would go up from where they lead.

    The file itself may be a link, whose name says what it is where that of its target does not, as in the cache of a
    hub.
    """
    return Path(os.path.realpath(path.parent)) / path.name


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would be something else to the spec's own reader or to one of YAML 1.1."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        resolver: Any = CoreResolver()
        tag = resolver.resolve(kind, value, implicit)
        older: Any = super()
        return tag if tag != TEXT else older.resolve(kind, value, implicit)

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> yaml.ScalarNode:
        """Escape what is not printable: some of it is a line break to YAML, which folds it into a space."""
        return super().represent_scalar(tag, value, style if value.isprintable() else '"')

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        """Give each key of a long mapping a line of its own."""
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = node.flow_style and len(node.value) <= _MOST_ON_A_LINE
        return node

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value out each time that it occurs."""
        return True
