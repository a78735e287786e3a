"""The report document: one on stdout, the same in the file, its keys and types as the contract has them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import tiny

TALKING = """
import os, sys
print("from the import"); os.write(1, b"from below Python\\n"); os.system("echo from a child")
inner = build
def build():
    model = inner()
    model.register_forward_hook(lambda *args: print("from the forward"))
    return model
"""
NUMBER = (int, float)
COST = {"forward": NUMBER, "gradient": NUMBER, "hvp": NUMBER, "seconds": float}
PAIR = {"value": float, "residual_norm": float}
TRACE = {
    "value": float,
    "stderr": float,
    "interval": [float],
    "confidence": float,
    "method": str,
    "probes": int,
    "matvecs": int,
    "converged": bool,
    "groups": [{"name": str, "parameters": int, "value": float, "stderr": float}],
}
EIGENVALUES = {"method": str, "matvecs": int, "converged": bool, "largest": [PAIR], "smallest": [PAIR]}
GAP = {
    "distribution": str,
    "estimator": str,
    "noise": str,
    "draws": int,
    "rss": float,
    "rows": [
        dict.fromkeys(
            (
                "sigma",
                "gap",
                "stderr",
                "predicted",
                "predicted_stderr",
                "relative_deviation",
                "relative_deviation_stderr",
            ),
            float,
        )
        | {"std": type(None)}  # fresh noise for every batch has no spread over draws
    ],
}
DENSITY = {"grid": [float], "density": [float], "steps": int, "probes": int}
ROW = {
    "quantity": str,
    "value": float,
    "reference": float,
    "reference_name": str,
    "difference": float,
    "tolerance": float,
    "agrees": bool,
}
ALWAYS = {
    "schema": str,
    "version": str,
    "command": str,
    "status": str,
    "target": {
        "checkpoint": {"path": str, "format": str, "sha256": str},
        "parameters": int,
        "parameters_total": int,
        "dtype": str,
        "device": str,
    },
    "data": {"examples": int, "weight": float, "batches": int, "fingerprint": str},
    "loss": float,
    "gradient_norm": float,
    "cost": COST,
    "seed": int,
    "environment": {"python": str, "torch": str, "platform": str},
}
SECTIONS = {
    "audit": {"eigenvalues": EIGENVALUES, "trace": TRACE, "gap": GAP},
    "eigs": {"eigenvalues": EIGENVALUES},
    "trace": {"trace": TRACE},
    "gap": {"trace": TRACE, "gap": GAP},
    "density": {"density": DENSITY},
    "crosscheck": {"eigenvalues": EIGENVALUES, "trace": TRACE, "crosscheck": {"rows": [ROW]}},
}
NEVER_WITH_OTHERS = {"eigenvalues", "trace", "gap", "density", "crosscheck"}


@pytest.mark.parametrize("command", SECTIONS)
def test_one_document_as_the_contract_has_it(folder, run, command):
    result = run(command, "audit.yaml", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert result.stdout == (folder / ".hessdiag" / f"last-{command}.json").read_text()
    assert mismatches(document, ALWAYS | SECTIONS[command]) == []
    assert document["schema"] == "hessdiag/report@1"
    assert (document["command"], document["status"]) == (command, "complete")
    assert document["target"]["parameters"] == document["target"]["parameters_total"] == tiny.PARAMETERS
    assert (document["data"]["examples"], document["data"]["weight"], document["data"]["batches"]) == (30, 30.0, 3)
    assert NEVER_WITH_OTHERS & document.keys() == SECTIONS[command].keys()


def test_order_and_sums_within_the_report(folder, run):
    document = json.loads(run("audit", "audit.yaml", "--json", "--set", "audit.eigenvalues.bottom=2").stdout)
    largest = [pair["value"] for pair in document["eigenvalues"]["largest"]]
    smallest = [pair["value"] for pair in document["eigenvalues"]["smallest"]]
    assert largest == sorted(largest, reverse=True)
    assert smallest == sorted(smallest)
    trace = document["trace"]
    assert sum(group["value"] for group in trace["groups"]) == pytest.approx(trace["value"])
    assert [group["parameters"] for group in trace["groups"]] == [20, 5, 15, 3]
    assert trace["interval"][0] <= trace["value"] <= trace["interval"][1]
    rows = document["gap"]["rows"]
    assert [row["sigma"] for row in rows] == [0.01, 0.02]
    assert document["gap"]["rss"] == pytest.approx(sum(row["relative_deviation"] ** 2 for row in rows) / 2)
    for row in rows:
        assert row["predicted"] == pytest.approx(row["sigma"] ** 2 / 2 * trace["value"])
        assert row["relative_deviation"] == pytest.approx(row["gap"] / row["predicted"] - 1)


def test_one_seed_one_document(folder, run):
    first, second = (json.loads(run("audit", "audit.yaml", "--json", "--seed", "5").stdout) for _ in range(2))
    assert tiny.without_times(first) == tiny.without_times(second)
    assert first["seed"] == 5


def test_another_seed_is_another_draw_of_the_same_hessian(folder, run):
    first, second = (json.loads(run("audit", "audit.yaml", "--json", "--seed", str(seed)).stdout) for seed in (0, 1))
    for key in ("loss", "gradient_norm", "data", "target"):
        assert first[key] == second[key]
    assert first["trace"]["value"] != second["trace"]["value"]
    assert first["gap"]["rows"] != second["gap"]["rows"]
    for end in ("largest", "smallest"):
        for one, other in zip(first["eigenvalues"][end], second["eigenvalues"][end], strict=True):
            room = one["residual_norm"] + other["residual_norm"] + 1e-6
            assert abs(one["value"] - other["value"]) <= room


def test_options_beat_the_spec(folder, run):
    args = ("--json", "--set", "audit.eigenvalues.top=3", "--top", "1", "--bottom", "0", "--method", "power")
    document = json.loads(run("eigs", "audit.yaml", *args).stdout)
    assert len(document["eigenvalues"]["largest"]) == 1
    assert document["eigenvalues"]["smallest"] == []
    assert document["eigenvalues"]["method"] == "power"
    document = json.loads(run("eigs", "audit.yaml", "--json", "--set", "audit.eigenvalues.top=3").stdout)
    assert len(document["eigenvalues"]["largest"]) == 3


def test_gap_options(folder, run):
    args = ("--sigma", "0.1:0.3:3", "--draws", "5", "--estimator", "one-sided", "--distribution", "uniform")
    gap = json.loads(run("gap", "audit.yaml", "--json", *args).stdout)["gap"]
    assert [row["sigma"] for row in gap["rows"]] == [0.1, 0.2, 0.3]
    assert (gap["draws"], gap["estimator"], gap["distribution"]) == (5, "one-sided", "uniform")


def test_common_options_reach_the_measurement(folder, run):
    args = ("--dtype", "float64", "--batch-size", "7", "--max-examples", "20", "--device", "cpu")
    document = json.loads(run("trace", "audit.yaml", "--json", *args).stdout)
    assert (document["data"]["examples"], document["data"]["batches"]) == (20, 3)
    assert (document["target"]["dtype"], document["target"]["device"]) == ("float64", "cpu")


def test_a_checkpoint_option_starts_from_here_not_from_the_spec(folder, run, monkeypatch):
    place = folder / "päper ☃ 🙂"
    place.mkdir()
    (folder / "weights.safetensors").rename(place / "w.safetensors")
    monkeypatch.chdir(place)
    result = run("eigs", "../audit.yaml", "--json", "--checkpoint", "w.safetensors")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["target"]["checkpoint"]["path"] == str(place / "w.safetensors")


def test_not_converged_is_said_on_stderr_and_in_the_document(folder, run):
    result = run("trace", "audit.yaml", "--json", "--rtol", "1e-6")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["trace"]["converged"] is False
    assert len(document["warnings"]) == 1
    assert f"warning: {document['warnings'][0]}" in result.stderr


def test_out_is_written_where_it_is_said_and_folders_are_made(folder, run):
    result = run("eigs", "audit.yaml", "--json", "--out", "new/deep/report.json")
    assert Path("new/deep/report.json").read_text() == result.stdout
    assert not Path(".hessdiag").exists()


def test_the_plain_report_says_where_the_document_is(folder, run):
    result = run("eigs", "audit.yaml")
    assert ".hessdiag/last-eigs.json" in result.stdout


FORETOLD = re.compile(r"about [0-9,]+ passes over the data, (less than a second|[0-9]+ s)\n")


@pytest.mark.parametrize("command", SECTIONS)
def test_the_cost_is_told_before_the_work_begins_and_nothing_else(folder, run, command):
    assert FORETOLD.fullmatch(run(command, "audit.yaml").stderr)
    assert run(command, "audit.yaml", "--quiet").stderr == ""


def test_a_limit_on_the_time_is_told_too(folder, run):
    assert run("eigs", "audit.yaml", "--max-time", "2m").stderr.endswith("; cut short 2m00s after the start\n")


def test_when_the_time_is_up_the_report_is_complete_and_says_so(folder, run):
    late = ("trace", "audit.yaml", "--max-time", "0.001", "--set", "audit.trace.rtol=1e-6")
    result = run(*late, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["status"]) == (0, "complete")
    assert document["trace"]["converged"] is False
    assert "the time was up (max_time)" in result.stderr
    assert "the time was up (max_time)" in run(*late).stdout


@pytest.mark.parametrize("time", ["0", "-3", "5 minutes"])
def test_what_is_no_time_is_a_usage_error_with_the_option(folder, run, time):
    result = run("audit", "audit.yaml", f"--max-time={time}")
    assert result.exit_code == 2
    assert f"--max-time {time}: audit.max_time: found '{time}', expected a time greater than 0: seconds, " in (
        result.stderr
    )


def test_no_warning_of_a_library_reaches_the_terminal(folder, run):
    (folder / "model.py").write_text(f"import warnings\n{tiny.MODEL}\nwarnings.warn('from a library', FutureWarning)\n")
    assert run("eigs", "audit.yaml", "--quiet").stderr == ""


def test_what_the_spec_prints_stays_off_stdout(folder, run, capfd):
    (folder / "model.py").write_text(tiny.MODEL + TALKING)
    result = run("eigs", "audit.yaml", "--json")
    assert json.loads(result.stdout)["status"] == "complete"
    assert "from the import" in result.stderr
    assert "from the forward" in result.stderr
    assert capfd.readouterr() == ("", "from below Python\nfrom a child\n")
    os.write(1, b"later")
    assert capfd.readouterr().out == "later"  # put back


def mismatches(value, shape, path="$"):
    """Where a document has other keys or types than ``shape``; keys beyond it are allowed."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        missing = [f"{path}.{key} is missing" for key in shape if key not in value]
        return missing + [
            m for key in shape if key in value for m in mismatches(value[key], shape[key], f"{path}.{key}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{path}: {value!r} is no filled list"]
        return [m for place, item in enumerate(value) for m in mismatches(item, shape[0], f"{path}[{place}]")]
    right = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    return [] if right else [f"{path}: {value!r} is no {shape}"]
