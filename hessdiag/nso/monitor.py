"""Sharpness while training: a lean audit of a fixed subset now and then, for a fixed share of the run's gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hessdiag.cost import Cost
from hessdiag.problem import Problem
from hessdiag.spec.schema import AuditSpec
from hessdiag.workflows.audit import audit

__all__ = ["Budget", "gradients_of", "monitored_examples", "sharpness"]

_FORWARD, _PRODUCT = 1 / 3, 2.5  # of a gradient
_EXPECTED = 95.0  # gradients: the most that a measurement takes
_MOMENTS = 10  # measurements that the subset is made small enough for
_FEWEST = 32  # examples: of fewer the sharpness is another


def gradients_of(cost: Cost) -> float:
    """A cost in gradients' worth of passes."""
    return _FORWARD * cost.forward + cost.gradient + _PRODUCT * cost.hvp


def monitored_examples(allowed: float, most: int, available: int) -> int:
    """How many examples to measure on: as many as ten measurements can be afforded of.

    Args:
        allowed: gradients of single examples for all measurements.
        most: examples wanted.
        available: examples there are.
    """
    return max(min(most, available, int(allowed / (_MOMENTS * _EXPECTED))), min(_FEWEST, most, available))


@dataclass
class Budget:
    """Gradients of single examples that measurements may take, over the epochs of a run.

    Never by a stopwatch: a resumed run measures at the same epochs. The first and the last epoch come before the
    others, which share what is left as the run goes on.

    Attributes:
        allowed: in all.
        epochs: of the run.
        spent: so far.
        dearest: the most that one has taken, or is expected to.
    """

    allowed: float
    epochs: int
    dearest: float
    spent: float = 0.0

    def affords(self, epoch: int) -> bool:
        """Whether to measure after ``epoch`` epochs."""
        if epoch in (0, self.epochs):
            return self.spent + self.dearest * (2 if epoch == 0 else 1) <= self.allowed
        due = self.allowed * epoch / self.epochs
        return self.spent + self.dearest <= min(due, self.allowed - self.dearest)

    @property
    def refusal(self) -> str | None:
        """Why nothing is ever measured; None: something is."""
        if self.affords(self.epochs):
            return None
        return (
            f"sharpness is not monitored: once it takes up to {self.dearest:,.0f} gradients of single examples, "
            f"and train.monitor_share leaves {self.allowed:,.0f}: raise it, or lower train.monitor_examples"
        )

    def took(self, cost: Cost, examples: int) -> float:
        """Count a measurement; its gradients of single examples."""
        gradients = gradients_of(cost) * examples
        expected_only = self.spent == 0
        self.dearest = gradients if expected_only else max(self.dearest, gradients)
        self.spent += gradients
        return gradients

    @classmethod
    def of(cls, allowed: float, epochs: int, examples: int) -> Budget:
        """For measurements on so many examples."""
        return cls(allowed, epochs, _EXPECTED * examples)


def sharpness(problem: Problem, *, sigma: float, lr: float, seed: int) -> tuple[dict[str, Any], Cost]:
    """Trace, largest eigenvalue and gap at ``sigma``, each with its error, as keys of a history's row; and the cost."""
    plan = AuditSpec.model_validate(
        {
            "eigenvalues": {"top": 1, "bottom": 0, "rtol": 0.03, "max_matvecs": 10},
            "trace": {"rtol": 0.1, "max_matvecs": 16},
            "gap": {"sigma": sigma, "draws": 8},
        }
    )
    before = problem.meter.read()
    report = audit(problem, plan, seed=seed, command="nso train")
    assert report.eigenvalues is not None
    assert report.trace is not None
    assert report.gap is not None
    largest, row = report.eigenvalues.largest[0], report.gap.rows[0]
    found = {
        "trace": report.trace.value,
        "trace_stderr": report.trace.stderr,
        "trace_interval": list(report.trace.interval),
        "largest_eigenvalue": largest.value,
        "residual_norm": largest.residual_norm,
        "edge_of_stability": lr * largest.value / 2,
        "gap": row.gap,
        "gap_stderr": row.stderr,
        "gap_sigma": sigma,
    }
    return found, problem.meter.read() - before
