"""What is to be measured, and on what: the spec (YAML) as frozen models, every fault in it at once.

The names are loaded on first use: ``hessdiag.spec.names`` comes without pydantic, so that ``hessdiag --help`` stays
fast. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hessdiag.lazy import loader

_HOMES = {
    "Spec": "hessdiag.spec.schema",
    "json_schema": "hessdiag.spec.schema",
    "load_spec": "hessdiag.spec.parse",
}

__all__ = ["Spec", "json_schema", "load_spec"]

if TYPE_CHECKING:
    from hessdiag.spec.parse import load_spec
    from hessdiag.spec.schema import Spec, json_schema

__getattr__ = loader(globals(), _HOMES)


def __dir__() -> list[str]:
    return __all__
