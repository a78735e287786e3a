"""How sharp is this checkpoint? The Hessian of the loss: eigenvalues, trace, density, noise gap, with error bars.

The names below are loaded on first use, so that ``import hessdiag`` (and ``hessdiag --help``) stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "HessianOperator": "hessdiag.curvature.hessian",
    "Problem": "hessdiag.problem",
    "audit": "hessdiag.workflows.audit",
    "eigenvalues": "hessdiag.estimators.eigenvalues",
    "load": "hessdiag.loading",
    "noise_gap": "hessdiag.estimators.noise_gap",
    "spectral_density": "hessdiag.estimators.density",
    "trace": "hessdiag.estimators.trace",
}

__all__ = [
    "HessianOperator",
    "Problem",
    "__version__",
    "audit",
    "eigenvalues",
    "load",
    "noise_gap",
    "spectral_density",
    "trace",
]

if TYPE_CHECKING:
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.estimators.density import spectral_density
    from hessdiag.estimators.eigenvalues import eigenvalues
    from hessdiag.estimators.noise_gap import noise_gap
    from hessdiag.estimators.trace import trace
    from hessdiag.loading import load
    from hessdiag.problem import Problem
    from hessdiag.workflows.audit import audit


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
