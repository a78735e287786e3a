"""The same quantities by independent implementations, and how far they are apart."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

import torch

from hessdiag.curvature.dense import dense_hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.trace_goal import TraceGoal
from hessdiag.problem import Problem
from hessdiag.results import SECTIONS, CrosscheckResult, CrosscheckRow, EigenvaluesResult, Report, TraceResult
from hessdiag.spec.schema import AuditSpec
from hessdiag.workflows.audit import Told, Watch, audit_of
from hessdiag.workflows.pyhessian_adapter import pyhessian_of

__all__ = ["crosscheck"]

_PYHESSIAN_ITERATIONS = 100
_PYHESSIAN_PROBES = 50
_RELATIVE_TOLERANCE = 0.01
_STANDARD_ERRORS = 4.0


def crosscheck(
    problem: Problem,
    settings: AuditSpec | None = None,
    *,
    seed: int = 0,
    max_dense: int = 5000,
    previous: Report | None = None,
    watch: Watch = lambda report, section: None,
    told: Told = lambda expected: None,
    started: float | None = None,
) -> Report:
    """Hold our eigenvalues and trace against PyHessian's, and against a dense float64 Hessian of a small model.

    Eigenvalues are compared by relative difference, traces in standard errors of the difference.

    Args:
        problem: what to measure.
        settings: how closely to measure ours.
        seed: of our probes and of PyHessian's.
        max_dense: up to how many parameters the dense matrix is formed; it takes as many products, and 8 n^2 bytes.
        previous: as in :func:`hessdiag.audit`.
        watch: as in :func:`hessdiag.audit`.
        told: as in :func:`hessdiag.audit`; of our own part alone.
        started: as in :func:`hessdiag.audit`; ``settings.max_time`` ends our own part alone.

    Returns:
        A report whose ``crosscheck`` section has a row for each comparison; a reference that could not be had
        says why.
    """

    def watch_parts(report: Report, section: str) -> None:
        if report.status == "complete":  # ours is, the crosscheck is not
            report, section = replace(report, status="partial"), SECTIONS["crosscheck"]
        watch(report, section)

    H = HessianOperator(problem)
    report = audit_of(
        H,
        (settings or problem.settings or AuditSpec()).only(("eigenvalues", "trace")),
        seed=seed,
        command="crosscheck",
        previous=previous,
        watch=watch_parts,
        told=told,
        started=time.perf_counter() if started is None else started,
    )
    if report.eigenvalues is None or report.trace is None:
        raise AssertionError("both were asked for")
    before = problem.meter.read()
    ours = _Ours(H, report.eigenvalues, report.trace)
    rows = [*_against_pyhessian(problem, ours, seed), *_against_dense(H, ours, max_dense)]
    result = CrosscheckResult(tuple(rows), seed, problem.meter.read() - before)
    report = replace(report, crosscheck=result, cost=report.cost + result.cost)
    watch(report, "")
    return report


class _Ours:
    """Our numbers, and the rows that compare them."""

    def __init__(self, H: HessianOperator, found: EigenvaluesResult, estimate: TraceResult) -> None:
        self.trace = estimate
        self.rounding = TraceGoal().rounding(H) * abs(estimate.value)
        self.largest = found.largest[0].value
        self.smallest = found.smallest[0].value if found.smallest else None
        ends = [self.largest] if self.smallest is None else [self.largest, self.smallest]
        self.scale = max(map(abs, ends))
        self.dominant = max(ends, key=abs)

    def eigenvalue_row(self, quantity: str, value: float, reference: float, name: str) -> CrosscheckRow:
        difference = abs(value - reference) / (self.scale or 1.0)
        return _row(quantity, value, reference, name, difference, _RELATIVE_TOLERANCE, "relative")

    def trace_row(self, reference: float, stderr: float, name: str) -> CrosscheckRow:
        # Of a diagonal Hessian every probe gives the trace, to rounding: its standard error alone would be too strict.
        spread = math.hypot(self.trace.stderr, stderr, self.rounding)
        difference = abs(self.trace.value - reference)
        errors = difference / spread if spread > 0 else (0.0 if difference == 0 else float("inf"))
        return _row("trace", self.trace.value, reference, name, errors, _STANDARD_ERRORS, "standard errors")


def _against_pyhessian(problem: Problem, ours: _Ours, seed: int) -> list[CrosscheckRow]:
    name = "pyhessian"
    problem.meter.expect(_PYHESSIAN_ITERATIONS + _PYHESSIAN_PROBES)
    try:
        with pyhessian_of(problem) as other:
            eigenvalue = other.eigenvalue(_PYHESSIAN_ITERATIONS, seed)
            value, stderr = other.trace(_PYHESSIAN_PROBES, seed)
    except Exception as error:  # whatever it cannot take is a result of the crosscheck, not its end
        return [
            _missing(ours.eigenvalue_row("eigenvalue of largest magnitude", ours.dominant, 0.0, name), error),
            _missing(ours.trace_row(0.0, 0.0, name), error),
        ]
    return [
        ours.eigenvalue_row("eigenvalue of largest magnitude", ours.dominant, eigenvalue, name),
        ours.trace_row(value, stderr, name),
    ]


def _against_dense(H: HessianOperator, ours: _Ours, max_dense: int) -> list[CrosscheckRow]:
    name, problem = "dense float64", H.problem
    if problem.n > max_dense:
        note = f"not formed: {problem.n} parameters are more than {max_dense}"
        return [_missing(ours.trace_row(0.0, 0.0, name), note)]
    problem.meter.expect(problem.n)
    try:
        matrix = dense_hessian(problem)
    except Exception as error:  # a model that cannot be copied, say; the rows above stand all the same
        return [_missing(ours.trace_row(0.0, 0.0, name), error)]
    values = torch.linalg.eigvalsh(matrix)
    rows = [ours.eigenvalue_row("largest eigenvalue", ours.largest, float(values[-1]), name)]
    if ours.smallest is not None:
        rows.append(ours.eigenvalue_row("smallest eigenvalue", ours.smallest, float(values[0]), name))
    return [
        *rows,
        ours.trace_row(float(matrix.trace()), 0.0, name),
        _product_row(H, matrix, name),
    ]


def _product_row(H: HessianOperator, matrix: torch.Tensor, name: str) -> CrosscheckRow:
    """One product with a random vector: nothing statistical in it."""
    v = Probes(H.n, seed=0, stream=Stream.CROSSCHECK, device=H.device, dtype=H.dtype)(0)
    product, reference = H.matvec(v).double(), matrix @ v.double()
    size = float(torch.linalg.vector_norm(reference))
    difference = float(torch.linalg.vector_norm(product - reference)) / (size or 1.0)
    return _row(
        "norm of Hv, random v",
        float(torch.linalg.vector_norm(product)),
        size,
        name,
        difference,
        _RELATIVE_TOLERANCE,
        "relative",
    )


def _row(
    quantity: str,
    value: float,
    reference: float,
    name: str,
    difference: float,
    tolerance: float,
    unit: Literal["relative", "standard errors"],
) -> CrosscheckRow:
    return CrosscheckRow(quantity, value, reference, name, difference, tolerance, unit, difference <= tolerance)


def _missing(row: CrosscheckRow, why: Exception | str) -> CrosscheckRow:
    """The row without its reference, which could not be had."""
    if isinstance(why, Exception):
        text = str(why).strip().splitlines()
        why = text[0] if isinstance(why, HessdiagError) else ": ".join([type(why).__name__, *text[:1]])
    return replace(row, reference=None, difference=None, agrees=None, note=why)
