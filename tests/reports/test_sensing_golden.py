"""What `nso sensing` shows, character by character; see test_report_golden.py on how to change it."""

import json

import pytest
import sensing_examples as examples
from test_report_golden import compare_in_a_pipe, compare_in_a_window, compare_in_ascii

from hessdiag.reports import terminal

PAGES = {
    "sensing": terminal.render_sensing(examples.ONE, ("sensing.json", "curves.png")),
    "sensing-several": terminal.render_sensing(examples.SEVERAL),
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
    compare_in_ascii(name, PAGES[name])


@pytest.mark.parametrize("name", examples.SENSINGS)
def test_the_document(name):
    found = examples.SENSINGS[name]
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["schema"] == "hessdiag/sensing@1"
    assert (
        document["ordered"]
        == sum(shown["ordered"] for shown in document["runs"])
        == len(found.runs) - (name != "sensing")
    )
    for shown, run in zip(document["runs"], found.runs, strict=True):
        assert (shown["seed"], shown["ordered"]) == (run.seed, run.ordered)
        assert [method["name"] for method in shown["methods"]] == ["GD", "WP-GD", "NSO"]
        assert shown["methods"][2]["validation_loss"] == list(run.methods[2].validation_loss)
        assert shown["methods"][2]["estimated_trace"]["stderr"] == run.methods[2].estimated_trace.stderr
