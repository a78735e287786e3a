"""Which keys of ``train:`` a training method has of its own, with their defaults."""

from __future__ import annotations

from typing import Any, get_args

from hessdiag.spec.names import TrainingMethod

__all__ = ["BASE_KEYS", "OPTIONS", "OWN_KEYS", "has_key", "methods_with"]

_NOISE = {"sigma": 0.01, "num_perturbations": 1, "distribution": "gaussian"}
_ORTHOGONAL = {"rho": 0.05, "eps0": None, "descent_lr": None, "gradient": "minibatch"}

OPTIONS: dict[str, dict[str, Any]] = {
    "nso": _NOISE,
    "sgd": {},
    "label-smoothing": {"smoothing": 0.1},
    "wp-sgd": _NOISE,
    "sam": {"rho": 0.02},
    "asam": {"rho": 1.0},
    "rsam": {"rho": 0.02, "sigma": 0.01, "lam": 2.0},
    "bsam": {"rho": 0.02, "damping": 0.1, "precision": 1.0, "betas": (0.9, 0.999)},
    "rsp": _ORTHOGONAL,
    "sap": _ORTHOGONAL,
}
"""By method, its own keys with their defaults: in the middle of the search ranges of arXiv 2306.08553."""

OWN_KEYS = tuple(dict.fromkeys(key for options in OPTIONS.values() for key in options))
BASE_KEYS = ("optimizer", "momentum", "clip_norm", "distance_l2")
"""Of the optimizer that steps, which bsam does not have: its step is its own, and so is its prior."""


def has_key(method: str, key: str) -> bool:
    """Whether a key of ``train:`` means something to a method."""
    if key in OWN_KEYS:
        return key in OPTIONS[method]
    return key not in BASE_KEYS or method != "bsam"


def methods_with(key: str) -> tuple[str, ...]:
    """The methods that have a key."""
    return tuple(method for method in get_args(TrainingMethod) if has_key(method, key))
