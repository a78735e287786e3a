"""``--set KEY.PATH=VALUE``: a value put into the tree, where the command line beats the spec."""

from __future__ import annotations

from hessdiag.errors import Diagnostic
from hessdiag.spec.compose import compose
from hessdiag.spec.scalars import show
from hessdiag.spec.tree import Node, Place, dotted

__all__ = ["apply_override"]

_DEFAULT_NAMES = {("loss",): "cross_entropy", ("train", "schedule"): "step", ("train", "optimizer"): "SGD"}
"""What may stand there as a name alone, and what an omitted one stands for."""


def apply_override(root: Node, text: str) -> list[Diagnostic]:
    """Put one override into the tree; faults carry its text instead of a line.

    The value is read as YAML by the rules of a file, and an empty one is null. Mappings that are missing or null
    on the way are created.
    """
    place = Place(f"--set {text}")
    key, equals, value = text.partition("=")
    path = tuple(key.split("."))
    if not equals or not all(path):
        return [place.fault("malformed; expected KEY.PATH=VALUE, for example data.batch_size=64")]
    if path[:2] == ("model", "_target_"):  # else it would stand beside a class_path that it is to replace
        path = ("model", "class_path", *path[2:])
    node, faults = compose(value, place.file, placed=False)
    if node is None:
        return faults
    return faults + _put(root, path, node, place)


def _put(root: Node, path: tuple[str, ...], node: Node, place: Place) -> list[Diagnostic]:
    parent = root
    for depth, step in enumerate(path[:-1], start=1):
        child = parent.value.get(step)
        if child is None or not isinstance(child.value, dict):
            child = _opened(child, path[:depth], place)
        if child is None:
            found = show(parent.value[step].plain())
            message = f"{dotted(path[:depth])} is {found}, expected a mapping; set it as a whole"
            return [place.fault(message)]
        parent.value[step] = child
        parent = child
    parent.value[path[-1]] = node
    return []


def _opened(child: Node | None, path: tuple[str, ...], place: Place) -> Node | None:
    """Make a mapping of what an override goes through; None where something else stands there."""
    if path in _DEFAULT_NAMES and (child is None or isinstance(child.value, str)):
        # An option of the loss, say: the short form `loss: NAME`, or the default, becomes the long form.
        name = Node(_DEFAULT_NAMES[path], place, place) if child is None else Node(child.value, child.place, child.key)
        return Node({"name": name}, name.place, name.key)
    if child is None or child.value is None:
        return Node({}, place, place)
    return None
