"""Samples shared out between the parts of a sum, and tensors between sets, against searches and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from hessdiag.estimators.allocation import (
    Sampled,
    counts_for,
    degrees_together,
    half_width,
    neyman,
    partition,
    sets_apart,
)
from hessdiag.estimators.split_plans import Planner


def parts(rng: np.random.Generator, count: int) -> list[Sampled]:
    return [
        Sampled(float(rng.exponential()), 20.0, int(rng.integers(1, 6)), float(rng.choice([1.0, 2.5])))
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_no_cheaper_counts_meet_the_target(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sampled = parts(rng, 3)
    costs = np.array([part.cost for part in sampled])
    variances = np.array([part.variance for part in sampled])
    counts = neyman(sampled, target=0.5)
    assert (variances / counts).sum() <= 0.5 + 1e-12
    best = min(
        float(costs @ np.array(some))
        for some in itertools.product(*(range(part.taken, 25) for part in sampled))
        if (variances / np.array(some)).sum() <= 0.5
    )
    assert costs @ counts <= best + costs.sum()  # whole samples: each count is at most one too many


def test_what_is_known_exactly_takes_no_more() -> None:
    known, unknown = Sampled(0.0, np.inf, 1, 1.0), Sampled(4.0, 9.0, 2, 2.5)
    assert neyman([known, unknown], 0.1).tolist() == [1, 40]
    assert neyman([known], 0.1).tolist() == [1]
    assert half_width([known], np.array([1]), 0.95) == 0


@pytest.mark.parametrize("degrees", [1.0, 3.0, 50.0])
def test_counts_are_enough_with_the_degrees_that_they_bring(degrees: float) -> None:
    sampled = [Sampled(1.0, degrees, 2, 1.0), Sampled(3.0, 2 * degrees, 3, 2.5)]
    counts = counts_for(sampled, 0.2, 0.99)
    assert half_width(sampled, counts, 0.99) <= 0.2
    fewer = np.maximum(np.floor(0.7 * counts), [2, 3])
    assert half_width(sampled, fewer, 0.99) > 0.2


def test_one_part_is_students_interval() -> None:
    expected = stats.t.ppf(0.975, 7) * np.sqrt(3.0 / 8)
    assert half_width([Sampled(3.0, 7.0, 8, 1.0)], np.array([8]), 0.95) == pytest.approx(expected)


@pytest.mark.parametrize(("count", "each"), [(6, 1), (20, 1), (6, 3), (1, 5)])
def test_degrees_of_pooled_variances(count: int, each: int) -> None:
    rng = np.random.default_rng(0)
    found = [degrees_together(rng.chisquare(each, count) / each, np.full(count, float(each))) for _ in range(500)]
    assert np.median(found) == pytest.approx(count * each, rel=0.2)


def test_degrees_of_no_variance_are_infinite() -> None:
    assert degrees_together(np.zeros(3), np.ones(3)) == np.inf
    assert degrees_together(np.array([1e-200, 1e-200]), np.array([4.0, 4.0])) == pytest.approx(10)


def work(sets: list[list[int]], blocks: np.ndarray) -> float:
    return float(sum(np.sqrt(blocks[np.ix_(some, some)].sum()) for some in sets) ** 2)


def splittings(items: list[int]) -> list[list[list[int]]]:
    if not items:
        return [[]]
    first, *rest = items
    smaller = splittings(rest)
    return [[[first], *sets] for sets in smaller] + [
        [*sets[:k], [first, *sets[k]], *sets[k + 1 :]] for sets in smaller for k in range(len(sets))
    ]


@pytest.mark.parametrize("seed", range(8))
def test_sets_are_close_to_the_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.exponential(size=(6, 6)) ** 3
    sets = partition(blocks)
    assert sorted(itertools.chain(*sets)) == list(range(6))
    best = min(work(other, blocks + blocks.T) for other in splittings(list(range(6))))
    assert work(sets, blocks + blocks.T) <= 1.25 * best


def test_strongly_coupled_tensors_part_and_uncoupled_ones_stay() -> None:
    blocks = np.diag([1.0, 1.0, 1.0, 1.0])
    assert partition(blocks) == [[0, 1, 2, 3]]
    blocks[0, 1] = blocks[1, 0] = 50.0
    sets = partition(blocks)
    assert not any({0, 1} <= set(some) for some in sets)
    assert len(sets) == 2
    assert partition(blocks, least=100.0) == [[0, 1, 2, 3]]


def test_sets_are_those_that_pay() -> None:
    assert sets_apart(np.zeros((3, 3)), first=3, probes=50) == ([], 1.0)
    assert sets_apart(np.ones((3, 3)), first=3, probes=50) == ([], 1.0)  # sets apart would be the same work
    coupled = np.full((4, 4), 100.0)
    np.fill_diagonal(coupled, [1.0, 4.0, 9.0, 0.0])
    sets, share = sets_apart(coupled, first=3, probes=10**9)
    assert sorted(map(sorted, sets)) == [[0], [1], [2]]  # the last has no block of its own
    assert share == pytest.approx((1 + 2 + 3) ** 2 / coupled.sum())
    few, share_of_few = sets_apart(coupled, first=3, probes=12)
    assert few == [] or share_of_few > share
    assert 3 * len(few) <= 12


@pytest.mark.parametrize("left", [0, 1, 5, 60, 5000])
@pytest.mark.parametrize("directions", [0, 9])
@pytest.mark.parametrize("seed", range(3))
def test_a_plan_keeps_within_the_budget_and_spends_it(seed: int, directions: int, left: int) -> None:
    sampled = parts(np.random.default_rng(seed), 3)
    planner = Planner(wanted=1e-3, level=0.95, left=left, directions=directions)
    plan = planner.affordable(sampled)
    assert plan.passes <= left
    assert plan.directions in (0, directions)
    assert plan.more[0] != 1
    grown = [count == 31 * part.taken for count, part in zip(plan.more, sampled, strict=True)]
    assert any(grown) or plan.passes >= 0.9 * left - 2


def test_an_easy_goal_leaves_the_budget_alone() -> None:
    planner = Planner(wanted=1.0, level=0.95, left=10**6)
    sampled = [Sampled(1.0, 50.0, 4, 1.0), Sampled(2.0, 50.0, 4, 2.5)]
    plan = planner.affordable(sampled)
    counts = np.array([part.taken + more for part, more in zip(sampled, plan.more, strict=True)])
    assert half_width(sampled, counts, 0.95) <= 1.0
    assert plan.work == planner.until_met(sampled).work == plan.more[0] + 2.5 * plan.more[1]
