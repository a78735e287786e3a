"""What is to be measured, and on what: the spec (YAML) as frozen models, every fault in it at once.

The names are loaded on first use: ``hessdiag.spec.names`` and ``parse_sigmas`` come without pydantic, so that
``hessdiag --help`` stays fast. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Spec": "hessdiag.spec.schema",
    "json_schema": "hessdiag.spec.schema",
    "load_spec": "hessdiag.spec.parse",
    "parse_sigmas": "hessdiag.spec.sigmas",
}

__all__ = ["Spec", "json_schema", "load_spec", "parse_sigmas"]

if TYPE_CHECKING:
    from hessdiag.spec.parse import load_spec
    from hessdiag.spec.schema import Spec, json_schema
    from hessdiag.spec.sigmas import parse_sigmas


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
