"""What pydantic found wrong, in the spec's own terms: place, path, what was found, what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hessdiag.errors import Diagnostic
from hessdiag.spec.files import has_from_data
from hessdiag.spec.scalars import needs_quotes, show
from hessdiag.spec.schema import Spec
from hessdiag.spec.tree import BROKEN, Node, dotted

__all__ = ["diagnose"]

_Path = tuple[str | int, ...]
_CONTAINERS = {"model_type": "a mapping", "dict_type": "a mapping", "tuple_type": "a list"}


def diagnose(error: ValidationError, root: Node) -> list[Diagnostic]:
    """Turn every fault of a validation into a diagnostic, except where the YAML was refused already."""
    details = error.errors(include_url=False)
    if any(_blamed(detail)[:1] == ("data",) for detail in details):  # then what validation has from it is faulty too
        details = [detail for detail in details if not has_from_data(root, _key(detail, root))]
    return [fault for detail in details if (fault := _diagnose(detail, root)) is not None]


def _blamed(detail: ErrorDetails) -> _Path:
    """The path of what is to blame, in pydantic's terms."""
    location, at = detail["loc"], detail.get("ctx", {}).get("at")
    if at and at[0] == "data" and location[:2] == ("train", "validation"):  # checked as if it stood under data
        return (*location[:2], *at[1:])
    return at or location


def _key(detail: ErrorDetails, root: Node) -> _Path:
    """The path of the key that is to blame, in the tree's terms; the key may be missing there."""
    blamed = _blamed(detail)
    path, _ = _locate(blamed, root)
    return (*path, blamed[-1]) if detail["type"] == "missing" and path[-1:] != blamed[-1:] else path


def _diagnose(detail: ErrorDetails, root: Node) -> Diagnostic | None:
    context = detail.get("ctx", {})
    path, node = _locate(_blamed(detail), root)
    if node.value is BROKEN:
        return None
    if detail["type"] == "missing":
        return _missing(detail, _key(detail, root), node, found=path)
    prefix = f"{dotted(path)}: " if path else ""
    if detail["type"] == "extra_forbidden":
        return node.key.fault(f"{prefix}unknown key; {_advice(detail)}")
    if detail["type"] == "misplaced":
        found = f"found with method {context['method']}, which has no such key"
        return node.key.fault(f"{prefix}{found}; expected method {context['methods']}")
    if detail["type"] == "too_short" and node.value:
        return None  # pydantic counts the items that passed; those that did not have faults of their own
    return node.place.fault(prefix + _wrong(detail, node))


def _locate(location: Iterable[str | int], root: Node) -> tuple[_Path, Node]:
    """Follow pydantic's location as far as the tree goes; it also names members of unions, which are passed over."""
    node = root
    path: _Path = ()
    for step in location:
        child = node.child(step)
        if child is not None:
            node, path = child, (*path, step)
    return path, node


def _missing(detail: ErrorDetails, key: _Path, node: Node, found: _Path) -> Diagnostic:
    """Complain at the mapping that lacks the key, or at the null that stands there."""
    phrase = detail.get("ctx", {}).get("phrase") or _description(detail["loc"])
    what = f"found {show(node.plain())}" if found == key else "missing"
    return node.place.fault(f"{dotted(key)}: {what}; expected {phrase}")


def _wrong(detail: ErrorDetails, node: Node) -> str:
    context = detail.get("ctx", {})
    value = node.plain()
    match detail["type"]:
        case "expected":
            return f"found {show(value)}, expected {context['phrase']}{_hint(value, context)}"
        case "value_error":  # parse_sigmas and its like say what they found
            return str(context["error"])
        case "too_short":
            return f"found {show(value)}, expected at least one item"
        case kind if kind in _CONTAINERS:
            return f"found {show(value)}, expected {_CONTAINERS[kind]}"
    return f"found {show(value)}; {detail['msg']}"


def _hint(value: Any, context: dict[str, Any]) -> str:
    if isinstance(value, str):
        if near := _near(value, context.get("names", ())):
            return f"; did you mean {near}?"
        if "number" in context["phrase"] and needs_quotes(value):
            return "; remove the quotes"
    elif context["phrase"] == "text" and isinstance(value, (bool, int, float)):
        return "; write it in quotes"
    return ""


def _advice(detail: ErrorDetails) -> str:
    *location, key = detail["loc"]
    keys = list(_fields(location))
    near = _near(str(key), keys)
    return f"did you mean {near}?" if near else f"expected one of: {', '.join(keys)}"


def _near(word: str, words: Sequence[str]) -> str | None:
    # Looser than this, "normal" is taken for "binomial".
    matches = difflib.get_close_matches(word, words, n=1, cutoff=0.75)
    return matches[0] if matches else None


def _description(location: _Path) -> str:
    """What a field holds, as the middle of a sentence."""
    text = _fields(location[:-1])[str(location[-1])].description or ""
    return text[:1].lower() + text[1:].removesuffix(".")


def _fields(location: Iterable[str | int]) -> dict[str, FieldInfo]:
    """The fields of the model at one of pydantic's locations."""
    annotation: Any = Spec
    for step in location:
        fields = _union_of_fields(annotation)
        annotation = fields[str(step)].annotation if step in fields else _member(annotation, step)
    return _union_of_fields(annotation)


def _union_of_fields(annotation: Any) -> dict[str, FieldInfo]:
    return {name: field for model in _models(annotation) for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _member(annotation: Any, tag: str | int) -> Any:
    """The member of a union that bears a tag; the whole union where none does."""
    union = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    for part in get_args(union):
        if Tag(str(tag)) in getattr(part, "__metadata__", ()):
            return part
    return annotation
