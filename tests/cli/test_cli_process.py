"""The program as a process: what only a real one shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

HEAVY = ("torch", "scipy", "pydantic", "numpy")
PROGRAM = [sys.executable, "-m", "hessdiag"]
SLOW = """
import os, time, torch

inner = build
def build():
    model = inner()
    if "SLOW" in os.environ:
        model.register_forward_pre_hook(lambda *args: time.sleep(0.02) if torch.is_grad_enabled() else None)
    return model
"""


def start(*args: str, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen([*PROGRAM, *args], stdout=pipe, stderr=pipe, text=True, env=env)


def imported_by(*args: str) -> set[str]:
    code = (
        "import sys\nfrom hessdiag.cli.app import app\n"
        f"try: app({list(args)!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_is_quick_and_imports_nothing_heavy():
    assert imported_by("--help") == set()
    assert imported_by("audit", "--help") <= {"pydantic"}  # typer's own, to read options
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([*PROGRAM, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begun)
    assert min(times) < 1.0  # 0.4 on an idle machine


def test_validate_and_schema_import_no_torch(folder):
    assert "torch" not in imported_by("validate", "audit.yaml")
    assert "torch" not in imported_by("schema")


@pytest.mark.parametrize("args", [["--help"], ["schema"], ["eigs", "audit.yaml", "--json", "--quiet"]])
def test_closed_pipe_is_no_failure(folder, args):
    process = start(*args)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0
    process.stderr.close()
    if "--json" in args:
        assert json.loads((folder / ".hessdiag/last-eigs.json").read_text())["status"] == "complete"


def test_closed_streams_change_no_exit_code(folder):
    for redirection in (">&-", "2>&-", ">&- 2>&- <&-"):
        command = f"{sys.executable} -m hessdiag validate nope.yaml {redirection}"
        assert subprocess.run(["sh", "-c", command], capture_output=True).returncode == 2


def test_killed_and_interrupted_runs_go_on_to_the_same_report(folder, run):
    (folder / "model.py").write_text(tiny.MODEL + SLOW)
    options = ("audit", "audit.yaml", "--set", "audit.density.steps=40")
    whole = run(*options, "--json", "--out", "whole.json").stdout

    process = start(*options, SLOW="1")
    killed = in_the_density(process)
    process.kill()
    process.communicate()
    assert killed["status"] == "partial"

    process = start(*options, SLOW="1")
    assert in_the_density(process)["trace"] == killed["trace"]  # its seconds too: taken over
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "eigenvalues, trace, noise gap finished and saved in .hessdiag/last-audit.json" in err

    resumed = run(*options, "--json").stdout
    assert json.loads(resumed)["trace"] == killed["trace"]
    assert tiny.without_costs(json.loads(resumed)) == tiny.without_costs(json.loads(whole))
    assert sorted(path.name for path in (folder / ".hessdiag").iterdir()) == ["last-audit.json"]


def in_the_density(process):
    """Wait until the other sections are on disk and the last part, the density, has begun; the report so far."""
    path, begun = Path(".hessdiag/last-audit.json"), time.time()
    before = path.stat().st_mtime_ns if path.exists() else 0
    while time.time() < begun + 60:
        assert process.poll() is None, process.communicate()
        if path.exists() and path.stat().st_mtime_ns != before:
            document = json.loads(path.read_text())
            if document.keys() >= {"eigenvalues", "trace", "gap"}:
                time.sleep(0.3)
                return document
        time.sleep(0.01)
    raise AssertionError("the other sections were not finished in a minute")
