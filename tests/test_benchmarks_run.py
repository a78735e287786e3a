"""The benchmarks' code runs: every section on next to nothing, and the page is put together as it should be."""

from __future__ import annotations

import math
import warnings

import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks.page import Target, merged, number, table


@pytest.fixture(autouse=True)
def _others_warn() -> None:
    warnings.simplefilter("ignore")  # of the peers, which are not ours to mend


@pytest.mark.parametrize("name", ["products", "trace", "untrained", "gap", "startup"])
def test_a_section_runs(name: str) -> None:
    text = program.run_section(name, quick=True)
    assert text.startswith("## ")
    assert "target" in text
    assert "hessdiag 0." in text


def test_targets_say_by_how_much_they_are_missed() -> None:
    assert str(Target("speed", 3.0, 2.0)) == "- speed: **3**, target at least 2: met"
    assert "missed by 25%, because of rain" in str(Target("speed", 1.5, 2.0, because="of rain"))
    assert "missed by 50%" in str(Target("time", 3.0, 2.0, at_least=False, unit=" s"))
    assert not Target("nothing", math.nan, 2.0).met


def test_a_section_alone_replaces_its_own_part() -> None:
    order = ("a", "b", "c")
    page = merged("", "# Old", {"c": "## C\n\nthree", "a": "## A\n\none"}, order)
    page = merged(page, "# New", {"b": "## B\n\ntwo", "a": "## A\n\nanother"}, order)
    assert [line for line in page.splitlines() if line and not line.startswith("<!--")] == [
        *("# New", "## A", "another", "## B", "two", "## C", "three"),
    ]
    assert merged(page, "# New", {}, order) == page


def test_numbers_have_three_figures() -> None:
    assert [number(x) for x in (0, 0.12345, 12.345, 12345.6, 1.5e-7)] == ["0", "0.123", "12.3", "12,346", "1.5e-07"]


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
