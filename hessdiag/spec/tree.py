"""A spec as read: plain values, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from hessdiag.errors import Diagnostic

__all__ = ["BROKEN", "Node", "Place", "dotted"]


class _Broken:
    """Stands where a value was refused already, so that its key is not called missing as well."""


BROKEN: Final = _Broken()


@dataclass(frozen=True)
class Place:
    """Where something stands: a file with line and column from 1, or the text of an override without them."""

    file: str
    line: int | None = None
    column: int | None = None

    def fault(self, message: str) -> Diagnostic:
        """Complain about this place."""
        return Diagnostic(self.file, self.line, self.column, message)


@dataclass
class Node:
    """A value with its place: a scalar, a list of nodes, a mapping of text to nodes, or BROKEN.

    ``key`` is the place of the key that leads to it, and its own place where none does.
    """

    value: Any
    place: Place
    key: Place

    def plain(self) -> Any:
        """The value without the places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, step: str | int) -> Node | None:
        """The node under a key or an index; None where there is none."""
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int) and step < len(self.value):
            node: Node = self.value[step]
            return node
        return None

    def find(self, *path: str | int) -> Node | None:
        """The node at a path; None where the path leaves the tree."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node else None
        return node


def dotted(path: Iterable[str | int]) -> str:
    """Write a path as messages do: ``parameters.include[0]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
