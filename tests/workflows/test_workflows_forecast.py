"""The forecast of the cost, held against what is spent on the fixtures."""

from __future__ import annotations

from pathlib import Path

import hessdiag
from hessdiag.cost import Cost
from hessdiag.spec.schema import AuditSpec, DensitySpec, EigenvaluesSpec, GapSpec, TraceSpec
from hessdiag.workflows.forecast import forecast

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_within_a_factor_of_three_of_what_is_spent() -> None:
    told: list[Cost] = []
    problem = hessdiag.load(FIXTURES / "digits/audit.yaml", overrides=["audit.gap.sigma=[0.02, 0.03]"])
    report = hessdiag.audit(problem, told=told.append)
    assert told[0].passes / 3 <= report.cost.passes <= told[0].passes * 3
    assert told[0].hvp / 3 <= report.cost.hvp <= told[0].hvp * 3


def test_budgets_bound_it_and_what_is_skipped_costs_nothing() -> None:
    plan = AuditSpec(
        eigenvalues=EigenvaluesSpec(top=2, bottom=0, max_matvecs=7),
        trace=TraceSpec(rtol=1e-6, max_matvecs=100),
        gap=GapSpec(draws=2),
        density=DensitySpec(steps=10, probes=3),
    )
    assert forecast(plan, ["eigenvalues"], 1.0).hvp == 7
    assert forecast(plan, ["trace"], 1.0).hvp == 100
    split = forecast(plan, ["trace"], 1.0, split=True)
    assert max(split.gradient, split.hvp) == 100
    assert forecast(plan, ["density"], 2.0).hvp == 30
    assert forecast(plan, ["density"], 2.0).seconds == 2 * forecast(plan, ["density"], 1.0).seconds
    assert forecast(plan, [], 1.0).passes == 0
