"""What a pickle may call besides tensors: what the person at the keyboard names, or stand-ins that do nothing."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from hessdiag.errors import UsageError
from hessdiag.loading.checkpoints.pickles import Look, reachable
from hessdiag.loading.checkpoints.words import ALONE, printable

__all__ = ["BLOCKED", "dangerous", "do_not_trust", "fillable", "import_globals", "stand_ins"]

BLOCKED = frozenset({"nt", "os", "posix", "sys"})
"""Modules of which torch lets no pickle call anything, whoever allows it."""

_DANGEROUS = BLOCKED | {
    *("_io", "_pickle", "_posixsubprocess", "bdb", "code", "codeop", "commands", "ctypes", "http", "importlib"),
    *("io", "marshal", "multiprocessing", "pdb", "pickle", "pip", "platform", "pty", "runpy", "shutil", "signal"),
    *("socket", "subprocess", "tempfile", "timeit", "urllib", "webbrowser"),
}


_DANGEROUS_BUILTINS = {
    *("__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec", "execfile", "getattr", "globals"),
    *("input", "locals", "open", "setattr", "vars"),
}


def dangerous(name: str) -> bool:
    """Whether a global is one by which a pickle takes over a machine, and which no honest checkpoint holds."""
    module, _, rest = name.partition(".")
    return rest in _DANGEROUS_BUILTINS if module == "builtins" else module in _DANGEROUS


def do_not_trust(what: str = "file") -> str:
    """What to say of a checkpoint that calls what is dangerous."""
    return f"No weights need that: do not trust this {what} unless you know who made it. {ALONE}"


def import_globals(names: Sequence[str]) -> list[tuple[Any, str]]:
    """What ``--allow-global`` names, as ``torch.serialization.safe_globals`` takes it.

    Raises:
        UsageError: a name cannot be imported, or torch calls nothing of its module.
    """
    found = [(_imported(name), name) for name in names]
    if "numpy.dtype" in names:  # each is of a class of its own, for which torch asks and which no pickle names
        found += [(getattr(np.dtypes, name), f"numpy.dtypes.{name}") for name in np.dtypes.__all__]
    return found


def fillable(allowed: Sequence[tuple[Any, str]], seen: Look) -> list[tuple[Any, str]]:
    """What is allowed, with a stand-in for what the pickle fills like a dict or a list.

    Torch fills its own kinds alone, and no ``defaultdict`` or configuration that is a dict.
    """
    return [(_stand_in(name, seen.filled[name]) if name in seen.filled else thing, name) for thing, name in allowed]


def _imported(name: str) -> Any:
    option = f"--allow-global {name}"
    module, *rest = name.split(".")
    if not rest or not all(part.isidentifier() for part in (module, *rest)):
        raise UsageError(f'{option}: expected a dotted name as the refusal gives it, "package.module.Name"')
    if module in BLOCKED:
        raise UsageError(f"{option}: torch lets no checkpoint call anything of the module {module}")
    if module == "__main__":
        raise UsageError(
            f"{option}: cannot be imported, because the script that saved the checkpoint defined it. Save the weights "
            "alone with that script: torch.save(model.state_dict(), ...) or safetensors"
        )
    for length in range(len(rest), 0, -1):
        path = ".".join((module, *rest[: length - 1]))
        try:
            found = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is not None and (path == error.name or path.startswith(f"{error.name}.")):
                missing = error.name
                continue
            raise UsageError(f"{option}: {path} cannot be imported ({error})") from error
        except Exception as error:
            raise UsageError(f"{option}: {path} cannot be imported ({type(error).__name__}: {error})") from error
        return _attribute(found, rest[length - 1 :], path, option)
    raise UsageError(f"{option}: cannot be imported, no module {missing}: install the package that has it")


def _attribute(found: Any, names: Sequence[str], path: str, option: str) -> Any:
    for name in names:
        if not hasattr(found, name):
            raise UsageError(f"{option}: {path} has no {name}")
        path, found = f"{path}.{name}", getattr(found, name)
    return found


def stand_ins(seen: Look, refused: Collection[str], keep_from: Collection[str]) -> list[tuple[Any, str]]:
    """For every refused global, a class of its name that ignores what it is given.

    Args:
        seen: the pickle.
        refused: globals that it calls.
        keep_from: the top-level keys under which nothing is replaced, because they hold the weights.

    Returns:
        As ``torch.serialization.safe_globals`` takes them; those of programs and of the weights are left out.
    """
    keys = seen.result.keys or {}
    weights = {thing.name for key in keep_from for thing in reachable(keys.get(key))}
    return [
        (_stand_in(name, seen.filled.get(name, ())), name)
        for name in refused
        if name not in weights and not dangerous(name)
    ]


def _stand_in(name: str, filled: Collection[str]) -> type:
    """A class whose instances are what ``weights_only`` lets a pickle fill: a dict, a list, or anything with state."""

    def new(cls: type, *_: Any, **__: Any) -> Any:
        if "items" in filled:
            return OrderedDict()
        return [] if "appended" in filled else object.__new__(cls)

    def ignore(self: Any, state: Any) -> None:
        pass

    return type(
        printable(name.rpartition(".")[2]), (), {"__new__": new, "__init__": _ignore_all, "__setstate__": ignore}
    )


def _ignore_all(self: Any, *_: Any, **__: Any) -> None:
    pass
