"""The program run in this process, in a folder of its own that holds the tiny spec."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner, Result

from hessdiag.cli.app import app

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Iterator[Run]:
    runner = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"})
    handler = signal.getsignal(signal.SIGINT)

    def invoke(*args: str) -> Result:
        result = runner.invoke(app, list(args))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    yield invoke
    signal.signal(signal.SIGINT, handler)  # a program that was interrupted ignores it from then on
