"""What `inspect` and `doctor` show, character by character; see test_report_golden.py on how to change it."""

import json

import findings_examples as examples
import pytest
from test_report_golden import compare_in_a_pipe, compare_in_a_window, printed

from hessdiag.reports import terminal

PAGES = {name: terminal.render_checkpoint(found) for name, found in examples.INSPECTIONS.items()} | {
    name: terminal.render_examination(found) for name, found in examples.EXAMINATIONS.items()
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [80, 120])
def test_in_a_window(name, width):
    compare_in_a_window(name, PAGES[name], width)


@pytest.mark.parametrize("name", PAGES)
def test_in_a_pipe(name, monkeypatch):
    compare_in_a_pipe(name, PAGES[name], monkeypatch)


@pytest.mark.parametrize("name", PAGES)
def test_in_ascii(name):
    text = printed(PAGES[name], 80, "ascii")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_names_out_of_a_file_steer_no_terminal():
    text = printed(PAGES["inspect-odd"], 80)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"evil\x1b[31m\n[bold]name" in text


def test_what_is_not_well_is_no_number_that_json_lacks():
    documents = [found.to_dict() for found in (*examples.INSPECTIONS.values(), *examples.EXAMINATIONS.values())]
    assert [json.loads(json.dumps(document, allow_nan=False)) for document in documents] == documents
    assert [document.get("well") for document in documents] == [None, None, None, True, False, False]


def test_memory_that_is_shared_is_counted_once():
    total = examples.ODD.to_dict()["totals"]
    assert (total["tensors"], total["parameters"]) == (6, 1_000_000 + 1200 + 30 + 1 + 3)
    assert (total["nan"], total["inf"]) == (2, 6)
    assert list(total["by_dtype"]) == ["float32", "bfloat16", "int64"]
