"""From a spec to a problem. The names below are loaded on first use: ``doctor`` must run where torch does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hessdiag.lazy import loader

_HOMES = {
    "Reading": "hessdiag.loading.checkpoints.contents",
    "load": "hessdiag.loading.problems",
    "load_parts": "hessdiag.loading.problems",
    "load_problem": "hessdiag.loading.problems",
}

__all__ = ["Reading", "load", "load_parts", "load_problem"]

if TYPE_CHECKING:
    from hessdiag.loading.checkpoints.contents import Reading
    from hessdiag.loading.problems import load, load_parts, load_problem

__getattr__ = loader(globals(), _HOMES)
