"""What people see, character by character.

After a wanted change: ``HESSDIAG_REGENERATE_GOLDEN=1 pytest tests/reports/test_report_golden.py``, then read the diff.
"""

import io
import os
import pathlib
import sys

import pytest
import report_examples as examples
from rich.console import Console, RenderableType

from hessdiag.reports import json as json_report
from hessdiag.reports import terminal
from hessdiag.reports.console import stdout_console

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
SAVED = ".hessdiag/last-audit.json"


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"report-{name}.txt"
    if os.environ.get("HESSDIAG_REGENERATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def printed(content: RenderableType, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    Console(file=stream, width=width, height=25, color_system=None).print(content)
    stream.flush()
    return raw.getvalue().decode(encoding)


def compare_in_a_window(name: str, page: RenderableType, width: int) -> None:
    text = printed(page, width)
    assert max(map(len, text.splitlines())) <= width
    compare(f"{name}-{width}", text)


def compare_in_a_pipe(name: str, page: RenderableType, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    stdout_console().print(page)
    compare(f"{name}-piped", stream.getvalue())


def compare_in_ascii(name: str, page: RenderableType) -> None:
    text = printed(page, 80, "ascii")
    assert max(map(len, text.splitlines())) <= 80
    compare(f"{name}-ascii", text)


@pytest.mark.parametrize("name", examples.ALL)
@pytest.mark.parametrize("width", [80, 120])
def test_in_a_window(name, width):
    compare_in_a_window(name, terminal.render(examples.ALL[name], SAVED), width)


@pytest.mark.parametrize("name", examples.ALL)
def test_in_a_pipe(name, monkeypatch):
    compare_in_a_pipe(name, terminal.render(examples.ALL[name], SAVED), monkeypatch)


@pytest.mark.parametrize("name", examples.ALL)
def test_in_ascii(name):
    compare_in_ascii(name, terminal.render(examples.ALL[name], SAVED))


def test_json():
    compare("full-json", json_report.render(examples.FULL))
