"""Python objects that a spec names: ``file.py:name`` beside the spec, or ``package.module.Name``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from hessdiag.errors import HessdiagError, UsageError

__all__ = ["import_reference"]


def import_reference(reference: str, resolve: Callable[[str], Path], key: str) -> Any:
    """Import the object that a spec names. The file runs: a spec is trusted like a script.

    Args:
        reference: ``file.py:name`` or ``package.module.Name``.
        resolve: finds the file.
        key: the spec's key, for messages.

    Raises:
        UsageError: there is no such module or name.
        HessdiagError: the file or module raised while it was imported.
    """
    file, colon, name = reference.rpartition(":")
    if colon:
        module = _module_from_file(resolve(file), f"{key}: {file}")
    else:
        package, _, name = reference.rpartition(".")
        module = _module_by_name(package, reference, key)
    if not hasattr(module, name):
        offered = sorted(n for n, item in vars(module).items() if callable(item) and not n.startswith("_"))
        raise UsageError(
            f"{key}: found no {name!r} in {file or module.__name__}, expected one of: {', '.join(offered) or 'nothing'}"
        )
    return getattr(module, name)


def _module_by_name(package: str, reference: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{key}: found no module {error.name!r} for {reference!r}: install the package that has it, "
            'or name a file beside the spec ("model.py:build")'
        ) from error
    except Exception as error:
        raise HessdiagError(f"{key}: importing {package} failed: {type(error).__name__}: {error}") from error


def _module_from_file(path: Path, shown: str) -> ModuleType:
    """Import a file under a name of its own, so that two specs' ``model.py`` do not meet."""
    path = path.absolute()
    name = f"hessdiag_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise UsageError(f"{shown}: found no Python file, expected a name that ends in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        with _importable(path.parent):
            specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise HessdiagError(f"{shown}: importing it failed: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, as a script could."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
