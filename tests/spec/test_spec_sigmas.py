from __future__ import annotations

import random

import pytest
from spec_texts import BASE, Load

from hessdiag.errors import SpecError
from hessdiag.spec.sigmas import parse_sigmas


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.02:0.03:11", (0.02, 0.021, 0.022, 0.023, 0.024, 0.025, 0.026, 0.027, 0.028, 0.029, 0.03)),
        ("0.1:0.3:3", (0.1, 0.2, 0.3)),
        ("1e-3:3e-3:3", (0.001, 0.002, 0.003)),
        (" 1 : 2 : 2 ", (1.0, 2.0)),
        ("0.5:0.5:1", (0.5,)),
        ("0.02,0.03", (0.02, 0.03)),
        ("0.3, 0.1", (0.3, 0.1)),
        ("0.02", (0.02,)),
    ],
)
def test_forms(text: str, values: tuple[float, ...]) -> None:
    assert parse_sigmas(text) == values


def test_a_range_has_clean_values_for_any_clean_ends() -> None:
    rng = random.Random(0)
    for _ in range(500):
        start, step, count = rng.randint(1, 999), rng.randint(1, 99), rng.randint(2, 50)
        literals = tuple(float(f"{start + i * step}e-5") for i in range(count))
        assert parse_sigmas(f"{literals[0]}:{literals[-1]}:{count}") == literals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-0.1", "found -0.1, expected a finite sigma greater than 0"),
        ("0", "found 0, expected a finite sigma greater than 0"),
        ("1e-400", "found 1e-400, expected a finite sigma greater than 0"),
        ("nan", "found nan, expected a finite sigma greater than 0"),
        ("0.1:inf:3", "found inf, expected a finite sigma greater than 0"),
        ("-1:1:3", "found -1, expected a finite sigma greater than 0"),
        ("", "found '', expected a number"),
        ("0.1,", "found '', expected a number"),
        ("big", "found 'big', expected a number"),
        ("1_0", "found '1_0', expected a number"),
        ("0.1;0.2", "found '0.1;0.2', expected a number"),
        ("0.1:0.2", "found '0.1:0.2', expected start:stop:count, for example 0.02:0.03:11"),
        ("1:2:3:4", "found '1:2:3:4', expected start:stop:count, for example 0.02:0.03:11"),
        ("1:2:0", "found '0', expected a count: a whole number from 1 to 1000"),
        ("1:2:-3", "found '-3', expected a count: a whole number from 1 to 1000"),
        ("1:2:2.5", "found '2.5', expected a count: a whole number from 1 to 1000"),
        ("1:2:1001", "found '1001', expected a count: a whole number from 1 to 1000"),
        ("1:2:²", "found '²', expected a count: a whole number from 1 to 1000"),
        ("3:2:2", "found a range from 3 down to 2, expected start below stop"),
        ("1:2:1", "found 1 value from 1 to 2, expected a count of 1 where start equals stop, "
         "and of at least 2 where it does not"),
        ("1:1:2", "found 2 values from 1 to 1, expected a count of 1 where start equals stop, "
         "and of at least 2 where it does not"),
        ("0.1,0.2,0.10", "found 0.1 twice, expected different sigmas"),
        ("1:1.0000000000000002:3", "found 1 twice, expected different sigmas"),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        parse_sigmas(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["auto", "' auto '"])
def test_sigmas_to_be_found(load: Load, text: str) -> None:
    spec = load(BASE + f"audit: {{gap: {{sigma: {text}}}}}")
    assert spec.audit.gap is not None
    assert spec.audit.gap.sigma == "auto"
    assert spec.audit.model_dump(mode="json")["gap"]["sigma"] == "auto"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{sigma: auto, estimator: one-sided}", "audit.gap.estimator: found 'one-sided', expected two-sided, because"),
        ("{sigma: [auto]}", r"audit.gap.sigma\[0\]: found 'auto', expected a finite number greater than 0"),
        ("{sigma: automatic}", "found 'automatic', expected a number"),
        ("{noise: loud}", "audit.gap.noise: found 'loud', expected per-batch or shared"),
        ("{rtol: -1}", "audit.gap.rtol: found -1, expected a finite number of at least 0"),
    ],
)
def test_faults_of_the_gap(load: Load, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(BASE + f"audit: {{gap: {text}}}")


@pytest.mark.parametrize("text", ["0", "null"])
def test_all_draws_may_be_asked_for(load: Load, text: str) -> None:
    gap = load(BASE + f"audit: {{gap: {{rtol: {text}}}}}").audit.gap
    assert gap is not None
    assert not gap.rtol
    assert gap.noise == "per-batch"


@pytest.mark.parametrize("text", ["0.1", "'0.1'", "[0.1]", "0.1:0.1:1"])
def test_forms_in_a_spec(load: Load, text: str) -> None:
    gap = load(BASE + f"audit: {{gap: {{sigma: {text}}}}}").audit.gap
    assert gap is not None
    assert gap.sigma == (0.1,)
