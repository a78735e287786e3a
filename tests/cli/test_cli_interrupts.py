"""Ctrl-C in this process: 130, what was finished is saved and said, and the same command goes on from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from hessdiag.results import SECTIONS
from hessdiag.workflows import crosscheck, sections

OUT = Path(".hessdiag/last-audit.json")


def interrupt(*args):
    raise KeyboardInterrupt


def interrupting(steps, at_once):
    """Steps at whose beginning, or else at whose end, Ctrl-C comes."""
    if not at_once:
        yield from steps
    raise KeyboardInterrupt
    yield


def counted(monkeypatch):
    """The sections that are measured from now on."""
    measured = []
    for section, original in sections._STEPS.items():

        def wrapper(job, section=section, original=original):
            measured.append(section)
            return original(job)

        monkeypatch.setitem(sections._STEPS, section, wrapper)
    return measured


SLOW = ("--set", "audit.density.steps=40")


@pytest.mark.parametrize(
    ("section", "at_once", "finished"),
    [
        ("eigenvalues", True, []),
        ("eigenvalues", False, ["trace", "gap"]),
        ("density", True, ["eigenvalues", "trace", "gap"]),
    ],
)
def test_what_is_finished_is_saved_and_not_measured_again(folder, run, monkeypatch, section, at_once, finished):
    whole = json.loads(run("audit", "audit.yaml", *SLOW, "--json", "--out", "whole.json").stdout)
    with monkeypatch.context() as patch:
        original = sections._STEPS[section]
        patch.setitem(sections._STEPS, section, lambda job: interrupting(original(job), at_once))
        result = run("audit", "audit.yaml", *SLOW)
    assert result.exit_code == 130
    assert result.stdout == ""
    partial = json.loads(OUT.read_text())
    assert partial["status"] == "partial"
    assert [key for key in SECTIONS if key in partial] == finished
    assert {"loss", "gradient_norm"} <= partial.keys()
    if finished:
        names = ", ".join(SECTIONS[name] for name in finished)
        assert f"interrupted: {names} finished and saved in {OUT}; the same command goes on from there" in result.stderr
    else:
        assert "no section was finished" in result.stderr

    measured = counted(monkeypatch)
    resumed = json.loads(run("audit", "audit.yaml", *SLOW, "--json").stdout)
    taken_over = [key for key in finished if key != "eigenvalues"]  # the density goes on from their vectors
    assert measured == [key for key in sections._STEPS if key not in taken_over]
    assert tiny.without_costs(resumed) == tiny.without_costs(whole)
    assert [resumed[key] for key in taken_over] == [partial[key] for key in taken_over]  # times too


def test_a_complete_report_is_measured_anew(folder, run, monkeypatch):
    run("audit", "audit.yaml")
    measured = counted(monkeypatch)
    run("audit", "audit.yaml")
    assert measured == ["eigenvalues", "trace", "gap"]


def test_crosscheck_goes_on_too(folder, run, monkeypatch):
    whole = json.loads(run("crosscheck", "audit.yaml", "--json", "--out", "whole.json").stdout)
    with monkeypatch.context() as patch:
        patch.setattr(crosscheck, "_against_pyhessian", interrupt)
        result = run("crosscheck", "audit.yaml")
    assert result.exit_code == 130
    partial = json.loads(Path(".hessdiag/last-crosscheck.json").read_text())
    assert partial["status"] == "partial"
    measured = counted(monkeypatch)
    resumed = json.loads(run("crosscheck", "audit.yaml", "--json").stdout)
    assert measured == []
    assert tiny.without_costs(resumed) == tiny.without_costs(whole)


def test_while_loading_an_earlier_report_stays(folder, run):
    before = run("audit", "audit.yaml", "--json").stdout
    (folder / "model.py").write_text("raise KeyboardInterrupt")
    result = run("audit", "audit.yaml")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert OUT.read_text() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"schema": "hessdiag/report@1"}', "[" * 100_000, "\udcff"])
def test_what_is_no_report_is_written_over(folder, run, content):
    OUT.parent.mkdir()
    OUT.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert run("audit", "audit.yaml").exit_code == 0
    assert json.loads(OUT.read_text())["status"] == "complete"
