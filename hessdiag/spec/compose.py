"""YAML text to a tree with places. Strict: one document, text keys, no key twice, no objects, no endless aliases."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer
from yaml.events import AliasEvent, StreamEndEvent
from yaml.nodes import MappingNode, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from hessdiag.errors import Diagnostic
from hessdiag.spec.scalars import MERGE, CoreResolver, construct, show, show_tag
from hessdiag.spec.tree import BROKEN, Node, Place, dotted

__all__ = ["compose"]

_DEEPEST = 50
_MOST_NODES = 100_000

Path = tuple[str | int, ...]


def compose(text: str, file: str, *, placed: bool = True) -> tuple[Node | None, list[Diagnostic]]:
    """Read one YAML document.

    Args:
        text: the document.
        file: how faults name its source.
        placed: whether its lines and columns mean something to the user; False for text of the command line.

    Returns:
        The tree (None where the text is not YAML) and all faults.
    """
    builder = _Builder(file, placed)
    root = None
    loader: Any = None  # most of PyYAML has no types
    try:
        loader = _Loader(text)
        loader.get_event()  # the stream's start
        empty = loader.check_event(StreamEndEvent)
        source = ScalarNode("tag:yaml.org,2002:null", "", loader.get_mark()) if empty else loader.compose_document()
        root = builder.node(source, None, ())
        if not loader.check_event(StreamEndEvent):
            message = "found a second document, expected one; remove it, or keep it in a file of its own"
            builder.fault(loader.peek_event().start_mark, message)
    except ReaderError as error:
        builder.faults.append(_unreadable(text, builder, error))
    except yaml.MarkedYAMLError as error:
        builder.fault(error.problem_mark or error.context_mark, _syntax(error))
    except (ValueError, OverflowError):  # PyYAML on an escape such as "\UFFFFFFFF"
        builder.fault(loader.get_mark(), "not valid YAML: an escape stands for no character")
    except _TooMuchError as error:
        builder.fault(error.mark, str(error))
    return root, builder.faults


class _TooMuchError(Exception):
    """Repeated beyond what any spec needs."""

    def __init__(self, mark: yaml.Mark | None) -> None:
        self.mark = mark
        super().__init__(f"found more than {_MOST_NODES} values, expected a spec; are aliases repeated?")


class _Loader(Reader, Scanner, Parser, Composer, CoreResolver):
    """PyYAML's way to a node graph, with the core schema's scalars and a bound on the depth."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        CoreResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; a bound rather than Python's recursion error."""
        if self._depth > _DEEPEST and not self.check_event(AliasEvent):
            parser: Any = self
            mark = parser.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    """Turns PyYAML's graph into a tree and collects the faults on the way."""

    def __init__(self, file: str, placed: bool) -> None:
        self.faults: list[Diagnostic] = []
        self.file = file
        self._placed = placed
        self._open: list[int] = []
        self._count = 0

    def place(self, mark: yaml.Mark | None) -> Place:
        if not self._placed or mark is None:
            return Place(self.file)
        return Place(self.file, mark.line + 1, mark.column + 1)

    def fault(self, mark: yaml.Mark | None, message: str) -> None:
        self.faults.append(self.place(mark).fault(message))

    def node(self, source: yaml.Node, key: Place | None, path: Path) -> Node:
        self._count += 1
        if self._count > _MOST_NODES:  # a few lines of aliases to aliases can mean billions of values
            raise _TooMuchError(source.start_mark)
        place = self.place(source.start_mark)
        return Node(self._value(source, path), place, key or place)

    def _value(self, source: yaml.Node, path: Path) -> Any:
        if isinstance(source, ScalarNode):
            return self._scalar(source, path)
        kind = "map" if isinstance(source, MappingNode) else "seq"
        if source.tag != f"tag:yaml.org,2002:{kind}":
            message = f"unknown tag {show_tag(source.tag)}; expected none, because a spec holds no objects"
            return self._refuse(source, path, message)
        if id(source) in self._open:
            return self._refuse(source, path, "contains itself through an alias; expected a finite value")
        self._open.append(id(source))
        try:
            if isinstance(source, MappingNode):
                return self._mapping(source, path)
            return [self.node(item, None, (*path, i)) for i, item in enumerate(source.value)]
        finally:
            self._open.pop()

    def _refuse(self, source: yaml.Node, path: Path, message: str) -> Any:
        self.fault(source.start_mark, f"{dotted(path)}: {message}" if path else message)
        return BROKEN

    def _scalar(self, source: ScalarNode, path: Path) -> Any:
        try:
            return construct(source.tag, source.value)
        except ValueError as error:
            return self._refuse(source, path, str(error))

    def _mapping(self, source: MappingNode, path: Path) -> dict[str, Node]:
        items: dict[str, Node] = {}
        merged: list[dict[str, Node]] = []
        for key_source, value in source.value:
            if key_source.tag == MERGE:
                merged.extend(self._merge(value, path))
                continue
            key = self._key(key_source, path)
            if key is None:
                continue
            place = self.place(key_source.start_mark)
            if key in items:
                self._twice((*path, key), items[key].key, place)
                continue
            items[key] = self.node(value, place, (*path, key))
        for more in merged:  # the mapping's own keys win, then those merged first
            items = {**more, **items}
        return items

    def _twice(self, path: Path, first: Place, second: Place) -> None:
        lines = f", on line {first.line} and line {second.line}" if first.line else ""
        self.faults.append(second.fault(f"{dotted(path)}: duplicate key: given twice{lines}; keep one of them"))

    def _key(self, source: yaml.Node, path: Path) -> str | None:
        within = f"{dotted(path)}: " if path else ""
        value = self._scalar(source, path) if isinstance(source, ScalarNode) else source.value
        if isinstance(value, str):
            return value
        if value is not BROKEN:
            shown = show(value) if isinstance(source, ScalarNode) else "a collection"
            self.fault(source.start_mark, f"{within}found {shown} as a key, expected text; write it in quotes")
        return None

    def _merge(self, source: yaml.Node, path: Path) -> list[dict[str, Node]]:
        sources = source.value if isinstance(source, SequenceNode) else [source]
        nodes = [self.node(item, None, path) for item in sources]
        for item, node in zip(sources, nodes, strict=True):
            if not isinstance(node.value, dict) and node.value is not BROKEN:
                self._refuse(item, (*path, "<<"), f"found {show(node.plain())}, expected a mapping to merge")
        return [node.value for node in nodes if isinstance(node.value, dict)]


def _syntax(error: yaml.MarkedYAMLError) -> str:
    context = f" ({error.context})" if error.context else ""
    hint = "; indent with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
    if error.context == "while scanning an alias":
        hint = "; a text that begins with * needs quotes"
    return f"not valid YAML: {error.problem}{context}{hint}"


def _unreadable(text: str, builder: _Builder, error: ReaderError) -> Diagnostic:
    before = text[: error.position]
    line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
    mark = yaml.Mark(builder.file, error.position, line, column, None, 0)
    code: Any = error.character  # an int, whatever its annotation says
    return builder.place(mark).fault(f"found the control character U+{code:04X}; remove it")
