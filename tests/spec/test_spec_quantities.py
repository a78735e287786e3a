"""Times and amounts of memory as people write them."""

from __future__ import annotations

import pytest
from spec_texts import BASE, Load

from hessdiag.spec.quantities import MEMORY_FORMS, TIME_FORMS, parse_memory, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("0.5", 0.5), (" 10m ", 600), ("10 m", 600), ("2h", 7200), ("1.5h", 5400),
        ("1h30m", 5400), ("1h 0m 5s", 3605), ("2m05s", 125), ("0h1m", 60), ("90m", 5400),
    ],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


BAD_TIMES = (
    *("", " ", "0", "0s", "0h0m", "-5", "-1m", "5 minutes", "10min", "ten", "1:30", "1h30", "30m1h", "1e3"),
    *("nan", "inf", "h", "10M", "1_0", "5d", "1,5", "٣", "9" * 400),
)


@pytest.mark.parametrize("text", BAD_TIMES)
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        parse_time(text)
    assert str(caught.value) == f"found {text!r}, expected {TIME_FORMS}"


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1), ("1000", 1000), ("1000B", 1000), ("4GB", 4 * 10**9), ("4gb", 4 * 10**9), ("4G", 4 * 10**9),
        ("4GiB", 2**32), ("0.5 MiB", 2**19), ("500 MB", 5 * 10**8), ("1kB", 1000), ("1KiB", 1024), ("2T", 2 * 10**12),
    ],
)  # fmt: skip
def test_amounts_of_memory(text: str, amount: int) -> None:
    assert parse_memory(text) == amount


BAD_AMOUNTS = ("", "0", "0GB", "0.5", "-4GB", "4 gigabytes", "4XB", "GB", "4GBit", "1e9", "inf", "1_000", "9" * 400)


@pytest.mark.parametrize("text", BAD_AMOUNTS)
def test_no_amounts_of_memory(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        parse_memory(text)
    assert str(caught.value) == f"found {text!r}, expected {MEMORY_FORMS}"


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("60", 60), ("'600'", 600), ("0.5", 0.5), ("null", None)])
def test_a_time_in_a_spec(load: Load, text: str, seconds: float | None) -> None:
    assert load(BASE + f"audit: {{max_time: {text}}}").audit.max_time == seconds


@pytest.mark.parametrize(("text", "amount"), [("4GB", 4 * 10**9), ("1000", 1000), ("1e9", 10**9), ("null", None)])
def test_an_amount_in_a_spec(load: Load, text: str, amount: int | None) -> None:
    memory = load(BASE + f"audit: {{memory: {text}}}").audit.memory
    assert memory == amount
    assert type(memory) in (int, type(None))
