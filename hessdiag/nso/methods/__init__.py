"""Training methods as torch optimizers around a base optimizer, each with a closure; loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hessdiag.lazy import loader

_HOMES = {
    "ASAM": "hessdiag.nso.methods.sam",
    "BSAM": "hessdiag.nso.methods.bsam",
    "NSO": "hessdiag.nso.methods.nso",
    "RSAM": "hessdiag.nso.methods.rsam",
    "RSP": "hessdiag.nso.methods.rsp",
    "SAM": "hessdiag.nso.methods.sam",
    "SAP": "hessdiag.nso.methods.rsp",
    "WPSGD": "hessdiag.nso.methods.nso",
}

__all__ = ["ASAM", "BSAM", "NSO", "RSAM", "RSP", "SAM", "SAP", "WPSGD"]

if TYPE_CHECKING:
    from hessdiag.nso.methods.bsam import BSAM
    from hessdiag.nso.methods.nso import NSO, WPSGD
    from hessdiag.nso.methods.rsam import RSAM
    from hessdiag.nso.methods.rsp import RSP, SAP
    from hessdiag.nso.methods.sam import ASAM, SAM

__getattr__ = loader(globals(), _HOMES)
