"""The trace of the Hessian, whole and by parameter group, with an interval that optional stopping does not spoil."""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch

from hessdiag.cost import Cost
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import QuadraticForms
from hessdiag.errors import UsageError
from hessdiag.estimators.intervals import look_level, looks, mean_interval
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import OutOfTime, Steps, run
from hessdiag.results import GroupTrace, TraceResult
from hessdiag.spec.names import TraceMethod

__all__ = ["ROUNDINGS", "trace", "trace_steps"]

METHODS: tuple[str, ...] = get_args(TraceMethod)
ROUNDINGS = 2.5  # of the vectors' dtype: 3e-7 in float32, the floor of an interval's relative half-width


def trace(
    H: SymmetricOperator,
    *,
    method: str = "auto",
    rtol: float = 0.05,
    max_matvecs: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    probes: Probes | None = None,
) -> TraceResult:
    """Tr[H] by Hutchinson's method with Rademacher probes, a fresh one for every batch of the spec.

    The estimate is the mean over probes of sum_b v_b^T H_b v_b; the trace of a parameter group is the mean
    of its share v_g^T (Hv)_g, from the same products. With one batch the variance of a probe is exactly
    2 sum_{i != j} H_ij^2; fresh vectors for each of B batches cut it several times at the same cost, because
    the cross terms between batches vanish.

    The interval is looked at after 16, 32, 64, ... probes and at the end; it is Student's, corrected for the
    samples' skewness, at the level that makes all possible looks hold together with probability ``confidence``.
    It is about 2.6 standard errors wide on each side, not 1.96: the price of stopping when it is narrow enough.

    Choose ``hutchinson`` always for now; ``auto`` takes it.

    Args:
        H: the operator.
        method: ``auto`` or ``hutchinson``.
        rtol: stop when the interval's half-width is at most ``rtol`` times |value|.
        max_matvecs: products (passes over the data) allowed.
        confidence: of the interval, optional stopping included.
        seed: of the probes.
        probes: other probes than those of ``seed`` (drawn on another device, say).

    Returns:
        ``converged`` is False when ``max_matvecs`` ran out first.

    Raises:
        UsageError: an unknown method, or fewer than two products allowed.

    Source: Hutchinson 1990; Girard 1989; the interval: Hall 1992, J. R. Statist. Soc. B 54, 221.
    """
    return run(
        H,
        trace_steps(
            H, method=method, rtol=rtol, max_matvecs=max_matvecs, confidence=confidence, seed=seed, probes=probes
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
) -> Steps[TraceResult]:
    """:func:`trace` as steps, to run beside other estimators."""
    if method not in METHODS:
        raise UsageError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    if max_matvecs < 2:
        raise UsageError(f"max_matvecs: found {max_matvecs}, expected at least 2: one probe has no standard error")
    if not rtol > 0:
        raise UsageError(f"rtol: found {rtol}, expected a positive number")
    draw = probes or Probes(H.n, seed=seed, stream=Stream.TRACE, device=H.device, dtype=H.dtype)
    sizes = looks(max_matvecs)
    level = look_level(len(sizes), confidence)
    rounding = ROUNDINGS * torch.finfo(H.dtype).eps
    samples = np.zeros((0, len(H.groups)))
    for size in sizes:
        try:
            more = yield QuadraticForms(draw, range(len(samples), size), vital=not len(samples))
        except OutOfTime:
            break
        samples = np.concatenate([samples, more.sums.numpy()])
        value, stderr, interval = mean_interval(samples.sum(1), level, rounding)
        converged = (interval[1] - interval[0]) / 2 <= rtol * abs(value)
        if converged:
            break
    return TraceResult(
        value=value,
        stderr=stderr,
        interval=interval,
        confidence=confidence,
        method="hutchinson",
        probes=len(samples),
        matvecs=len(samples),
        converged=converged,
        rtol=rtol,
        groups=_by_group(H, samples),
        seed=seed,
        cost=Cost(),
    )


def _by_group(H: SymmetricOperator, samples: np.ndarray) -> tuple[GroupTrace, ...]:
    means = samples.mean(0)
    stderrs = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return tuple(
        GroupTrace(group.name, group.size, float(mean), float(stderr))
        for group, mean, stderr in zip(H.groups, means, stderrs, strict=True)
    )
