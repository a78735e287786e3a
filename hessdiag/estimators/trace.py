"""The trace of the Hessian, whole and by parameter group, with an interval that optional stopping does not spoil."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.errors import UsageError
from hessdiag.estimators.deflated import deflated_steps
from hessdiag.estimators.hutchinson import hutchinson_steps
from hessdiag.estimators.hutchpp import hutchpp_steps
from hessdiag.estimators.probes import Probes
from hessdiag.estimators.split_trace import split_steps
from hessdiag.estimators.steps import Steps, run
from hessdiag.estimators.trace_auto import auto_steps
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.estimators.xtrace import xtrace_steps
from hessdiag.results import TraceResult
from hessdiag.spec.names import FEWEST_MATVECS

__all__ = ["trace", "trace_steps"]

METHODS: dict[str, Callable[[SymmetricOperator, TraceGoal], Steps[TraceResult]]] = {
    "auto": auto_steps,
    "deflated": deflated_steps,
    "gauss-newton": split_steps,
    "hutch++": hutchpp_steps,
    "hutchinson": hutchinson_steps,
    "xtrace": xtrace_steps,
}


def trace(
    H: SymmetricOperator,
    *,
    method: str = "auto",
    rtol: float = 0.05,
    max_matvecs: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    probes: Probes | None = None,
    basis: tuple[Tensor, Tensor] | None = None,
) -> TraceResult:
    """Tr[H], whole and by parameter group.

    Choose ``auto``: it takes the cheapest method that the operator and a short pilot allow, and says in ``reason``
    which and why. Each method's own function says when it is worth choosing.

    Args:
        H: the operator.
        method: ``auto``, ``gauss-newton``, ``hutchinson``, ``hutch++``, ``xtrace`` or ``deflated``.
        rtol: stop when the interval's half-width is at most ``rtol`` times |value|.
        max_matvecs: passes over the data allowed, products and gradients.
        confidence: of the interval, optional stopping included.
        seed: of the probes.
        probes: other probes than those of ``seed`` (drawn on another device, say).
        basis: vectors (n, k) that H is known on, as Ritz vectors, and their products with H (n, k); ``deflated``
            and ``auto`` use it.

    Returns:
        ``converged`` is False when ``max_matvecs`` ran out first.

    Raises:
        UsageError: an unknown method, one that the operator does not allow, or fewer passes than it takes at least.
    """
    return run(
        H,
        trace_steps(
            H,
            method=method,
            rtol=rtol,
            max_matvecs=max_matvecs,
            confidence=confidence,
            seed=seed,
            probes=probes,
            basis=basis,
        ),
    )


def trace_steps(
    H: SymmetricOperator,
    *,
    method: str = "auto",
    rtol: float = 0.05,
    max_matvecs: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    probes: Probes | None = None,
    basis: tuple[Tensor, Tensor] | None = None,
) -> Steps[TraceResult]:
    """:func:`trace` as steps, to run beside other estimators."""
    if method not in METHODS:
        raise UsageError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    fewest = FEWEST_MATVECS[method]
    if max_matvecs < fewest:
        raise UsageError(f"max_matvecs: found {max_matvecs}, expected at least {fewest} for method {method}")
    goal = TraceGoal(rtol=rtol, max_matvecs=max_matvecs, confidence=confidence, seed=seed, probes=probes, basis=basis)
    return METHODS[method](H, goal)
