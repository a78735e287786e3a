"""``hessdiag nso train`` from the shell: what it prints, how it ends, and where faults are placed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hessdiag.nso import loop

FAST = ("--epochs", "2", "--batch-size", "8", "--set", "audit.gap=null", "--set", "train.monitor_share=0.9")


def test_a_run_and_its_audit(folder, run):
    result = run("nso", "train", "audit.yaml", "--out", "run", *FAST, "--sigma", "0.02", "--num-perturbations", "2")
    assert result.exit_code == 0, result.output
    assert "validation" in result.stdout
    assert "Report saved to run/report.json" in result.stdout
    spec = Path("run/spec.yaml").read_text()
    assert "num_perturbations: 2" in spec
    audited = run("audit", "run", "--json")
    assert audited.exit_code == 0
    mine, theirs = json.loads(Path("run/report.json").read_text()), json.loads(audited.stdout)
    assert mine["command"] == "nso train"
    assert mine["trace"]["interval"] == theirs["trace"]["interval"]
    assert mine["loss"] == theirs["loss"]


def test_json_is_alone_on_stdout(folder, run):
    result = run("nso", "train", "audit.yaml", "--out", "run", *FAST, "--json", "--method", "sam", "--rho", "0.05")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(Path("run/report.json").read_text())


def test_ctrl_c_says_how_to_go_on(folder, run, monkeypatch):
    def interrupt(self, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_epoch", interrupt)
        result = run("nso", "train", "audit.yaml", "--out", "run", *FAST)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert "the same command with --resume goes on from there" in result.stderr
    again = run("nso", "train", "audit.yaml", "--out", "run", *FAST)
    assert again.exit_code == 2
    assert "--resume goes on with it" in again.stderr
    assert run("nso", "train", "audit.yaml", "--out", "run", *FAST, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--rho", "0.1"],
            2,
            "--rho 0.1: train.rho: found with method nso, which has no such key; expected method sam",
        ),
        (["--sigma", "-1"], 2, "train.sigma: found -1"),
        (["--method", "adam"], 2, "adam"),
        (
            ["--set", "train.optimizer=Sgd"],
            2,
            "--set train.optimizer=Sgd: train.optimizer: found 'Sgd', expected one of",
        ),
        (["--set", "train.validation=0.999"], 0, ""),
        (["--lr", "1e38", "--set", "train.schedule=constant", "--method", "sgd", "--epochs", "30"], 3, "has diverged"),
    ],
)
def test_how_it_ends(folder, run, arguments, code, message):
    result = run("nso", "train", "audit.yaml", "--out", "run", *FAST, *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_out_is_needed(folder, run):
    result = run("nso", "train", "audit.yaml")
    assert result.exit_code == 2
    assert "--out" in result.stderr
