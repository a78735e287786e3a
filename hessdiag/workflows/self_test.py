"""A small network measured the usual way, beside the eigenvalues and the trace of its dense Hessian."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from hessdiag.curvature.dense import dense_hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.estimators.eigenvalues import eigenvalues
from hessdiag.estimators.trace import trace
from hessdiag.findings import SelfTest
from hessdiag.problem import Problem
from hessdiag.results import CrosscheckRow, EigenvaluesResult, TraceResult

__all__ = ["self_test"]

_SEED = 0
_EXAMPLES = 64
_TOLERANCE = 1e-4  # relative, of eigenvalues in float32 whose residuals are below 1e-5
_STANDARD_ERRORS = 4.0
_REFERENCE = "dense float64 Hessian"


def self_test(device: str) -> SelfTest:
    """Measure on ``device`` in float32; the reference is formed on the CPU, because not every device has float64.

    Nothing is raised: what fails is the result's ``fault``.
    """
    begun = time.perf_counter()
    try:
        rows = _compared(device)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return SelfTest(device, time.perf_counter() - begun, fault=f"{type(error).__name__}: {lines[0]}")
    return SelfTest(device, time.perf_counter() - begun, rows)


def _compared(device: str) -> tuple[CrosscheckRow, ...]:
    matrix = dense_hessian(_problem("cpu"))
    H = HessianOperator(_problem(device))
    found = eigenvalues(H, top=1, bottom=1, rtol=1e-5, seed=_SEED)
    estimate = trace(H, rtol=0.05, seed=_SEED)
    return *_eigenvalue_rows(found, matrix), _trace_row(estimate, matrix)


def _problem(device: str) -> Problem:
    """83 weights, 64 examples in two batches, from a generator of their own."""
    random = torch.Generator().manual_seed(_SEED)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) / 2)
    x = torch.randn(_EXAMPLES, 6, generator=random)
    y = torch.randint(3, (_EXAMPLES,), generator=random)
    batches = list(zip(torch.split(x, 40), torch.split(y, 40), strict=True))
    return Problem(model.to(device), "cross_entropy", batches)


def _eigenvalue_rows(found: EigenvaluesResult, matrix: Tensor) -> tuple[CrosscheckRow, CrosscheckRow]:
    exact = torch.linalg.eigvalsh(matrix)
    scale = float(exact.abs().max())

    def row(quantity: str, value: float, reference: float) -> CrosscheckRow:
        difference = abs(value - reference) / scale
        agrees = difference <= _TOLERANCE  # not so of NaN
        return CrosscheckRow(quantity, value, reference, _REFERENCE, difference, _TOLERANCE, "relative", agrees)

    return (
        row("largest eigenvalue", found.largest[0].value, float(exact[-1])),
        row("smallest eigenvalue", found.smallest[0].value, float(exact[0])),
    )


def _trace_row(estimate: TraceResult, matrix: Tensor) -> CrosscheckRow:
    reference = float(matrix.trace())
    # An estimate may be exact of so small a matrix, to rounding in float32.
    error = max(estimate.stderr, 1e-5 * abs(reference))
    difference = abs(estimate.value - reference) / error
    agrees = difference <= _STANDARD_ERRORS
    return CrosscheckRow(
        "trace", estimate.value, reference, _REFERENCE, difference, _STANDARD_ERRORS, "standard errors", agrees
    )
