"""Names of a package that are loaded on first use, so that importing the package stays fast and needs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["loader"]


def loader(namespace: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__``.

    Args:
        namespace: the package's ``globals()``, in which a loaded name is kept.
        homes: by name, the module that has it.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        namespace[name] = getattr(importlib.import_module(homes[name]), name)
        return namespace[name]

    return load
