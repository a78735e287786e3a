"""Strict YAML to Spec: every fault at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from hessdiag.errors import Diagnostic, SpecError
from hessdiag.spec.compose import compose
from hessdiag.spec.faults import diagnose
from hessdiag.spec.files import missing_files, read_spec
from hessdiag.spec.overrides import apply_override
from hessdiag.spec.scalars import show
from hessdiag.spec.schema import Spec
from hessdiag.spec.tree import BROKEN, Node

__all__ = ["load_spec"]


def load_spec(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec, put the overrides over it, check it, and check that the files it names exist.

    Args:
        path: the YAML file, as the user gave it; messages show it so.
        overrides: texts ``KEY.PATH=VALUE``, of which later ones win; a relative file name in a VALUE starts from
            the spec's folder, as in the spec.

    Returns:
        The spec; its ``folder`` is that of ``path``.

    Raises:
        SpecError: the spec or an override is wrong; holds all faults, by line, those of overrides last.
        UsageError: ``path`` itself is missing or is not text.
    """
    path = Path(path)
    root, faults = compose(read_spec(path), str(path))
    if root is None or not isinstance(root.value, dict):
        raise SpecError(faults + ([_not_a_mapping(root)] if root and root.value is not BROKEN else []))
    faults += _resolve_alias(root)
    for text in overrides:
        faults += apply_override(root, text)
    faults += _resolve_alias(root)
    folder = path.absolute().parent
    spec = None
    try:
        spec = Spec.model_validate(root.plain())
    except ValidationError as error:
        faults += diagnose(error, root)
    faults += missing_files(root, folder)
    if faults or spec is None:
        raise SpecError(sorted(faults, key=_by_line))
    spec._folder = folder
    return spec


def _not_a_mapping(root: Node) -> Diagnostic:
    expected = "expected a mapping with the keys model and data"
    if root.value is None:  # after comments, PyYAML's place is the end of the file
        return Diagnostic(root.place.file, 1, 1, f"found an empty file; {expected}")
    return root.place.fault(f"found {show(root.plain())} at the top; {expected}")


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


def _by_line(fault: Diagnostic) -> tuple[bool, int, int]:
    return fault.line is None, fault.line or 0, fault.column or 0
