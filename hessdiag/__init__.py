"""How sharp is this checkpoint? The Hessian of the loss: eigenvalues, trace, density, noise gap, with error bars.

The names below are loaded on first use, so that ``import hessdiag`` (and ``hessdiag --help``) stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hessdiag.lazy import loader

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

__getattr__ = loader(globals(), _HOMES)


def __dir__() -> list[str]:
    return __all__
