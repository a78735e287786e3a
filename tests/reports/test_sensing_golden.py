"""What `nso sensing` shows, character by character; see test_report_golden.py on how to change it."""

import io
import json
import sys

import pytest
import sensing_examples as examples
from test_report_golden import compare, printed

from hessdiag.reports import terminal
from hessdiag.reports.console import stdout_console

PAGES = {
    "sensing": terminal.render_sensing(examples.ONE, ("sensing.json", "curves.png")),
    "sensing-several": terminal.render_sensing(examples.SEVERAL),
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [80, 120])
def test_in_a_window(name, width):
    text = printed(PAGES[name], width)
    assert max(map(len, text.splitlines())) <= width
    compare(f"{name}-{width}", text)


@pytest.mark.parametrize("name", PAGES)
def test_in_a_pipe(name, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    stdout_console().print(PAGES[name])
    compare(f"{name}-piped", stream.getvalue())


@pytest.mark.parametrize("name", PAGES)
def test_in_ascii(name):
    text = printed(PAGES[name], 80, "ascii")
    assert max(map(len, text.splitlines())) <= 80
    compare(f"{name}-ascii", text)


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
