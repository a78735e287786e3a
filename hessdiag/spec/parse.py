"""Strict YAML to Spec: every fault at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from hessdiag.errors import Diagnostic, SpecError
from hessdiag.spec.faults import diagnose
from hessdiag.spec.files import missing_files
from hessdiag.spec.overrides import apply_override
from hessdiag.spec.schema import Spec
from hessdiag.spec.targets import Target, find_target, put_default_loss
from hessdiag.spec.tree import Node

__all__ = ["load_spec", "spec_tree"]


def load_spec(target: Path | Target, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec, put the overrides over it, check it, and check that the files it names exist.

    Args:
        target: the YAML file, as the user gave it (messages show it so), or another target.
        overrides: texts ``KEY.PATH=VALUE``, of which later ones win; a relative file name in a VALUE starts from
            the spec's folder, as in the spec.

    Returns:
        The spec; its ``folder`` is that of the file.

    Raises:
        SpecError: the spec or an override is wrong; holds all faults, by line, those of overrides last.
        UsageError: the file itself is missing or is not text.
    """
    target = target if isinstance(target, Target) else find_target(Path(target))
    root, faults = spec_tree(target, overrides)
    if root is None:
        raise SpecError(faults)
    spec = None
    try:
        spec = Spec.model_validate(root.plain())
    except ValidationError as error:
        faults += diagnose(error, root)
    faults += missing_files(root, target.folder)
    if faults or spec is None:
        raise SpecError(sorted(faults, key=_by_line))
    spec._folder = target.folder
    return spec


def spec_tree(target: Target, overrides: Sequence[str]) -> tuple[Node | None, list[Diagnostic]]:
    """The tree of a target with the overrides over it, and the faults on the way; None where there is no tree."""
    root, faults = target.tree()
    if root is None:
        return None, faults
    faults += _resolve_alias(root)
    for text in overrides:
        faults += apply_override(root, text)
    faults += _resolve_alias(root)
    put_default_loss(root, target.folder)
    _lay_validation_over_data(root)
    return root, faults


def _resolve_alias(root: Node) -> list[Diagnostic]:
    """Give ``_target_`` its name ``class_path``."""
    model = root.child("model")
    if model is None or not isinstance(model.value, dict) or "_target_" not in model.value:
        return []
    target = model.value.pop("_target_")
    if "class_path" in model.value:
        return [target.key.fault("model._target_: found beside class_path, for which it is another name; keep one")]
    model.value["class_path"] = target
    return []


def _lay_validation_over_data(root: Node) -> None:
    """Fill up ``train.validation`` with the keys of ``data``, unless it is of another format."""
    data, own = root.child("data"), root.find("train", "validation")
    if data is None or own is None or not isinstance(data.value, dict) or not isinstance(own.value, dict):
        return
    if "format" not in own.value or own.value["format"].plain() == data.value.get("format", own).plain():
        own.value = {**data.value, **own.value}


def _by_line(fault: Diagnostic) -> tuple[bool, int, int]:
    return fault.line is None, fault.line or 0, fault.column or 0
