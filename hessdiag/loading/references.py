"""Python objects that a spec names: ``file.py:name`` beside the spec, or ``package.module.Name``."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import socket
import sys
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from hessdiag.errors import HessdiagError, UsageError
from hessdiag.loading.extras import explain_failure

__all__ = ["call_reference", "described", "import_reference", "kind_of"]

_MOST_NAMES = 8
_NO_NETWORK = (ConnectionError, TimeoutError, socket.gaierror, urllib.error.URLError)
_neighbours: dict[Path, dict[str, ModuleType]] = {}
"""By folder, the modules that files in it imported from there."""


def import_reference(reference: str, resolve: Callable[[str], Path], key: str) -> Any:
    """Import the object that a spec names. The file runs: a spec is trusted like a script.

    Args:
        reference: ``file.py:name`` or ``package.module.Name``; the name may go on to what a class has
            (``package.module.Class.from_config``).
        resolve: finds the file.
        key: the spec's key, for messages.

    Raises:
        UsageError: there is no such module or name.
        MissingExtraError: an optional package that it needs is missing or broken.
        HessdiagError: the file or module raised while it was imported.
    """
    file, colon, name = reference.rpartition(":")
    if colon:
        shown, found = file, _module_from_file(resolve(file), f"{key}: {file}")
    else:
        shown, found = _longest_module(reference, key)
        name = reference[len(shown) + 1 :]
    for part in name.split("."):
        try:
            inner = getattr(found, part)
        except AttributeError:
            raise UsageError(f"found no {part!r} in {shown}, expected {_offered(found, part)}", key) from None
        except Exception as error:  # a package that imports its parts when they are asked for
            raise _import_failure(error, f"{key}: {reference}", f"importing {part} from {shown}") from error
        found, shown = inner, f"{shown}{':' if shown == file else '.'}{part}"
    return found


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
        if missing := explain_failure(error, f"{key}: {reference}"):
            raise missing from error
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise HessdiagError(f"{key}: {reference}({given}) failed: {described(error)}{_way_on(key, error)}") from error


def described(error: BaseException) -> str:
    """What was raised, with its words where it has any."""
    return ": ".join(filter(None, [type(error).__name__, str(error).strip()]))


def kind_of(value: Any) -> str:
    """The name of its type, with an article: ``an int``."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in tuple('aeio') else 'a'} {name}"


def _way_on(key: str, error: BaseException) -> str:
    """What to do about weights that a factory could not download."""
    if not key.startswith("model") or not _for_want_of_a_network(error):
        return ""
    return (
        ": it wanted to download something, and could not: let it build the network without weights "
        "(pretrained: false, weights: null), and name a file with them under model.checkpoint"
    )


def _for_want_of_a_network(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, _NO_NETWORK):
            return True
        error = error.__cause__ or error.__context__  # libraries that download do not always say from what they raise
    return False


def _offered(holder: Any, name: str) -> str:
    """The names that come nearest, or the first few that can be called."""
    names = [n for n in dir(holder) if not n.startswith("_")]
    # A package that imports its parts when they are asked for lists them without having them.
    there = vars(holder) if isinstance(holder, ModuleType) else {}
    functions = [n for n in names if n not in there or callable(there[n])]
    shown = difflib.get_close_matches(name, names, n=4) or functions[:_MOST_NAMES]
    more = ", ..." if len(functions) > len(shown) else ""
    return f"one of: {', '.join(shown) or 'nothing'}{more}"


def _longest_module(reference: str, key: str) -> tuple[str, ModuleType]:
    """The longest part of a dotted name that is a module; what follows are names in it."""
    package = reference.rpartition(".")[0]
    while True:
        try:
            return package, importlib.import_module(package)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"{package}.".startswith(f"{missing}.") or "." not in missing:
                raise _missing_module(error, reference, key) from error
            package = missing.rpartition(".")[0]
        except (Exception, SystemExit) as error:
            raise _import_failure(error, f"{key}: {reference}", f"importing {package}") from error


def _missing_module(error: ModuleNotFoundError, reference: str, key: str) -> HessdiagError:
    return explain_failure(error, f"{key}: {reference}") or UsageError(
        f"found no module {error.name!r} for {reference!r}: install the package that has it, "
        'or name a file beside the spec ("model.py:build")',
        key,
    )


def _import_failure(error: BaseException, place: str, what: str) -> HessdiagError:
    return explain_failure(error, place) or HessdiagError(f"{place}: {what} failed: {described(error)}")


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
            raise _import_failure(error, shown, "importing it") from error
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
        inside = os.path.join(folder, "")
        own.update({name: module for name, module in sys.modules.copy().items() if _file_of(module).startswith(inside)})


def _file_of(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else ""
