import math
import random
from decimal import Decimal

import pytest

from hessdiag.reports.numbers import (
    Measured,
    align,
    count,
    duration,
    interval,
    measured,
    number,
    percent,
    same_decimals,
)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (48.3123, 0.41, "48.3 ± 0.4"),
        (48.3123, 0.26, "48.31 ± 0.26"),
        (48.3123, 0.97, "48.3 ± 1.0"),
        (48.3123, 3.6, "48 ± 4"),
        (1.234e-05, 2e-07, "1.234e-05 ± 2.0e-07"),
        (-1.234e-05, 2e-07, "-1.234e-05 ± 2.0e-07"),
        (3e-06, 2e-05, "3e-06 ± 2.0e-05"),
        (123456.0, 2345.0, "123500 ± 2300"),
        (6.02e23, 1.4e21, "6.020e+23 ± 1.4e+21"),
        (5.0, 0.0, "5 ± 0"),
        (0.0, 0.0, "0 ± 0"),
        (0.0, 0.4, "0.0 ± 0.4"),
        (-0.0001, 0.4, "0.0 ± 0.4"),
        (0.01, 5.0, "0 ± 5"),
        (12.3, 1e-15, "12.300000 ± 1e-15"),
        (9.99, 0.04, "9.99 ± 0.04"),
        (12.3, None, "12.3"),
        (None, 0.1, "–"),
        (None, None, "–"),
        (math.nan, 0.1, "nan ± 0.1"),
        (1.0, math.inf, "1 ± inf"),
    ],
)
def test_a_value_has_the_digits_that_its_error_leaves(value, error, shown):
    assert str(measured(value, error)) == shown


def test_a_signed_value_shows_plus():
    assert str(measured(1.02, 0.4, signed=True)) == "+1.0 ± 0.4"
    assert str(measured(-1.02, 0.4, signed=True)) == "-1.0 ± 0.4"
    assert str(measured(0.001, 0.4, signed=True)) == "0.0 ± 0.4"


def test_rounding_stays_well_within_the_error():
    generator = random.Random(0)
    for _ in range(3000):
        error = 10 ** generator.uniform(-12, 12)
        value = generator.choice([-1, 1]) * error * 10 ** generator.uniform(-3, 6)
        shown = measured(value, error)
        assert abs(float(shown.value) - value) <= 0.15 * error
        assert float(shown.error) == pytest.approx(error, rel=0.15)


def test_an_interval_is_rounded_outwards():
    assert interval(47.471, 49.152, 0.41) == "[47.4, 49.2]"
    generator = random.Random(1)
    for _ in range(3000):
        error = 10 ** generator.uniform(-12, 12)
        value = generator.gauss(0, 100) * error
        low, high = value - 2 * error, value + 2 * error
        first, last = (Decimal(end) for end in interval(low, high, error)[1:-1].split(", "))
        assert first <= Decimal(repr(low))
        assert last >= Decimal(repr(high))


def test_an_interval_without_a_finite_error():
    assert interval(5.0, 5.0, 0.0) == "[5, 5]"
    assert interval(-math.inf, math.inf, 1.0) == "[-inf, inf]"


def test_decimal_points_and_errors_stand_below_each_other():
    cells = [Measured("31.01", "0.31"), Measured("-4", "2"), Measured("0.2488", "0.0004"), Measured("–", "")]
    assert align(cells) == [
        "31.01   ± 0.31  ",
        "-4      ± 2     ",
        " 0.2488 ± 0.0004",
        " –              ",
    ]


def test_plain_numbers():
    assert [number(x) for x in (None, 0.0123456789, 1e-7, 2500000.0)] == ["–", "0.0123457", "1e-07", "2.5e+06"]
    assert [count(x) for x in (2201, 52.5, 1e6)] == ["2,201", "52.50", "1,000,000"]
    assert [count(1, "batch", "batches"), count(2, "probe")] == ["1 batch", "2 probes"]
    assert [percent(x) for x in (0.642, -0.0001, 1.5)] == ["64.2 %", "0.0 %", "150.0 %"]
    assert [duration(x) for x in (0.01, 8.4, 59.97, 131, 4021)] == ["< 0.1 s", "8.4 s", "1m00s", "2m11s", "1h07m"]
    assert same_decimals([0.02, 0.025, 1]) == ["0.020", "0.025", "1.000"]
    assert same_decimals([1e-7, 0.5]) == ["1e-07", "0.5"]
