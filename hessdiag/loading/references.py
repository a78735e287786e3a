"""Python objects that a spec names: ``file.py:name`` beside the spec, or ``package.module.Name``."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from hessdiag.errors import HessdiagError, UsageError

__all__ = ["call_reference", "described", "import_reference"]

_MOST_NAMES = 8
_neighbours: dict[Path, dict[str, ModuleType]] = {}
"""By folder, the modules that files in it imported from there."""


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
        raise UsageError(f"found no {name!r} in {file or module.__name__}, expected {_offered(module, name)}", key)
    return getattr(module, name)


def call_reference(
    key: str, reference: str, function: Callable[..., Any], resolve: Callable[[str], Path], /, **arguments: Any
) -> Any:
    """Call what a spec names with keyword arguments; the file's neighbours can be imported meanwhile.

    Args:
        key: the spec's key, for messages.
        reference: as it stands in the spec.
        function: what was imported for it.
        resolve: finds the file.
        arguments: given to the function.

    Raises:
        HessdiagError: it raised.
    """
    file, colon, _ = reference.rpartition(":")
    try:
        with _importable(resolve(file).absolute().parent) if colon else nullcontext():
            return function(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise HessdiagError(f"{key}: {reference}({given}) failed: {described(error)}") from error


def described(error: BaseException) -> str:
    """What was raised, with its words where it has any."""
    return ": ".join(filter(None, [type(error).__name__, str(error).strip()]))


def _offered(module: ModuleType, name: str) -> str:
    """The names that come nearest, or the first few."""
    names = sorted(n for n, item in vars(module).items() if callable(item) and not n.startswith("_"))
    shown = difflib.get_close_matches(name, names, n=4) or names[:_MOST_NAMES]
    more = ", ..." if len(names) > len(shown) else ""
    return f"one of: {', '.join(shown) or 'nothing'}{more}"


def _module_by_name(package: str, reference: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"found no module {error.name!r} for {reference!r}: install the package that has it, "
            'or name a file beside the spec ("model.py:build")',
            key,
        ) from error
    except (Exception, SystemExit) as error:
        raise HessdiagError(f"{key}: importing {package} failed: {described(error)}") from error


def _module_from_file(path: Path, shown: str) -> ModuleType:
    """Import a file under a name of its own, so that two specs' ``model.py`` do not meet.

    The name has the content in it: model and loss from one file share a module, an edited file is read anew.
    """
    path = path.absolute()
    try:
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape") + path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{shown}: could not be read: {error.strerror or error}") from error
    name = f"hessdiag_user_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise UsageError(f"{shown}: found no Python file, expected a name that ends in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        with _importable(path.parent):
            specification.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise HessdiagError(f"{shown}: importing it failed: {described(error)}") from error
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours, as a script could, and never those of another spec that bear their names."""
    for other, modules in _neighbours.items():
        for name, module in modules.items():
            if other != folder and sys.modules.get(name) is module:
                del sys.modules[name]
    own = _neighbours.setdefault(folder, {})
    sys.modules.update(own)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        own.update({name: module for name, module in sys.modules.copy().items() if _lies_in(folder, module)})


def _lies_in(folder: Path, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(folder)
