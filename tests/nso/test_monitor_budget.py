"""The monitor's budget: never overspent, spread over the run, and silent about nothing."""

from __future__ import annotations

import pytest

from hessdiag.cost import Cost
from hessdiag.nso.monitor import Budget, gradients_of, monitored_examples

COST = Cost(forward=18, gradient=4, hvp=20)
EXAMPLES = 40


@pytest.mark.parametrize("epochs", [1, 2, 30])
@pytest.mark.parametrize("allowed", [0.0, 1000.0, 3799.0, 3800.0, 5000.0, 7600.0, 40_000.0, 10.0**9])
def test_no_more_than_allowed_and_a_word_where_it_is_nothing(allowed: float, epochs: int) -> None:
    budget = Budget.of(allowed, epochs, EXAMPLES)
    refusal = budget.refusal
    measured = []
    for epoch in range(epochs + 1):
        if budget.affords(epoch):
            budget.took(COST, EXAMPLES)
            measured.append(epoch)
    assert budget.spent == pytest.approx(len(measured) * gradients_of(COST) * EXAMPLES)
    assert budget.spent <= allowed
    assert (refusal is None) is bool(measured)
    if allowed >= 7600:
        assert {0, epochs} <= set(measured)
    if allowed == 10**9:
        assert measured == list(range(epochs + 1))


def test_the_subset_is_as_large_as_ten_measurements_may_be() -> None:
    assert monitored_examples(10.0**9, most=1000, available=50_000) == 1000
    assert monitored_examples(10.0**9, most=1000, available=300) == 300
    assert monitored_examples(950_000.0, most=5000, available=50_000) == 1000
    assert monitored_examples(0.0, most=1000, available=50_000) == 32
    assert monitored_examples(0.0, most=10, available=50_000) == 10
