"""A pickle that the person at the keyboard trusts: read by whatever code it names, from wherever that may lie."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hessdiag.loading.checkpoints.words import printable

__all__ = ["TENSORS", "importable", "lost_with_script", "read_pickle"]

TENSORS = "torch.storage._load_from_bytes"
"""What a pickle that torch.save did not write calls for each tensor in it."""

_imported: dict[str, ModuleType] = {}
"""What the last checkpoint imported from beside it: that of another folder may bear the same names."""


def lost_with_script(names: Iterable[str]) -> str | None:
    """Why nobody can unpickle what a script defined itself; None where the program that runs has it all."""
    script = sys.modules["__main__"]
    for name in names:
        module, _, rest = name.partition(".")
        if module == "__main__" and not hasattr(script, rest.partition(".")[0]):
            return (
                f"the script that saved it defined {printable(rest)}, so that only that script can save the weights "
                "again: torch.save(model.state_dict(), ...) or safetensors"
            )
    return None


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Let a pickle import what lies in these folders, as the script that saved it could."""
    for name, module in _imported.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _imported.clear()
    path, before = sys.path.copy(), set(sys.modules)
    sys.path[:0] = [str(folder.absolute()) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in sys.modules.keys() - before:
            top = name.partition(".")[0]
            if top not in before and any((each / f"{top}.py").is_file() or (each / top).is_dir() for each in folders):
                _imported[name] = sys.modules[name]


def read_pickle(path: Path) -> Any:
    """What a pickle that torch.save did not write holds. It runs."""
    with path.open("rb") as file:
        return _OnProcessor(file).load()


class _OnProcessor(pickle.Unpickler):
    """Puts tensors into main memory, wherever they were."""

    def find_class(self, module: str, name: str) -> Any:
        return _tensor if f"{module}.{name}" == TENSORS else super().find_class(module, name)


def _tensor(content: bytes) -> Any:
    return torch.load(BytesIO(content), map_location="cpu", weights_only=False)
