"""What in a Python file builds a network: found by reading it, never by importing it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Factory", "find_factories", "obvious"]

_MOST_BYTES = 1 << 20
_BUILDERS = re.compile(r"(build|make|create|get|load)(_|[A-Z]|\Z)|(model|net|network)\Z", re.ASCII)


@dataclass(frozen=True)
class Factory:
    """A function or a class that may build the network: the arguments that it needs, and its defaults."""

    name: str
    is_class: bool
    required: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)


def find_factories(path: Path) -> list[Factory]:
    """The public functions named like builders, and the modules, of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's invalid escapes, say
            tree = ast.parse(file.read(_MOST_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return list(_factories(tree))


def obvious(factories: list[Factory]) -> Factory | None:
    """The one that a person would take: the only function, or the only class where there is none."""
    functions = [factory for factory in factories if not factory.is_class]
    candidates = functions or factories
    return candidates[0] if len(candidates) == 1 else None


def _factories(tree: ast.Module) -> Iterator[Factory]:
    modules = _modules(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and _BUILDERS.match(node.name):
            yield _factory(node.name, node.args, is_class=False)
    for node in modules:
        used = any(isinstance(part, ast.Name) and part.id == node.name for other in modules for part in ast.walk(other))
        if not used and not node.name.startswith("_"):  # those that others are made of are parts
            yield _of_class(node)


def _modules(tree: ast.Module) -> list[ast.ClassDef]:
    """The classes of the file that derive from a torch module, or from each other."""
    found: list[ast.ClassDef] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & {"Module", "Sequential", "LightningModule", *(other.name for other in found)}:
                found.append(node)
    return found


def _of_class(node: ast.ClassDef) -> Factory:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _factory(node.name, part.args, is_class=True)
    return Factory(node.name, is_class=True)


def _factory(name: str, arguments: ast.arguments, *, is_class: bool) -> Factory:
    positional = [*arguments.posonlyargs, *arguments.args][1 if is_class else 0 :]
    values: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [
        *zip((argument.arg for argument in positional), values[-len(positional) :] if positional else [], strict=True),
        *zip((argument.arg for argument in arguments.kwonlyargs), arguments.kw_defaults, strict=True),
    ]
    required = tuple(argument for argument, value in pairs if value is None)
    defaults = {argument: ast.unparse(value) for argument, value in pairs if value is not None}
    return Factory(name, is_class, required, defaults)
