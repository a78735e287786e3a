"""From a spec to a problem. The names below are loaded on first use: ``doctor`` must run where torch does not."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Reading": "hessdiag.loading.checkpoints.contents",
    "load": "hessdiag.loading.problems",
    "load_problem": "hessdiag.loading.problems",
}

__all__ = ["Reading", "load", "load_problem"]

if TYPE_CHECKING:
    from hessdiag.loading.checkpoints.contents import Reading
    from hessdiag.loading.problems import load, load_problem


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
