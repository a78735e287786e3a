"""``hessdiag nso sensing`` from the shell: what it prints and writes, how it ends."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
from tiny import without_times

from hessdiag.nso import sensing as module

OPTIONS = (
    *("--dimension", "--rank", "--width", "--examples", "--steps", "--lr", "--sigma", "--seed", "--seeds", "--paper"),
    *("--out", "--png", "--json", "--quiet", "--debug"),
)
FAST = ("nso", "sensing", "--dimension", "4", "--rank", "1", "--steps", "30", "--lr", "0.01")
MINUTE = ("nso", "sensing", "--seed", "1", "--steps", "5", "--dimension", "3", "--rank", "1", "--lr", "0.01")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_help(run):
    assert " nso " in run("--help").stdout
    assert " sensing " in run("nso", "--help").stdout
    words = run("nso", "sensing", "--help").stdout.split()
    assert [option for option in OPTIONS if option not in words] == []
    assert run("nso").exit_code == 2


def test_the_defaults_show_the_order_of_the_methods(run):
    result = run("nso", "sensing")
    assert result.exit_code == 0, result.stderr
    assert "NSO < WP-GD < GD in validation loss.\n" in result.stdout
    assert "× GD   ○ WP-GD   ● NSO" in result.stdout
    assert list(Path().iterdir()) == []


def test_json_is_one_document_and_the_same_in_the_file(run):
    result = run(*FAST, "--json", "--out", "deep/sensing.json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == Path("deep/sensing.json").read_text()
    document = json.loads(result.stdout)
    assert (document["schema"], document["status"]) == ("hessdiag/sensing@1", "complete")
    assert document["settings"] == {
        "dimension": 4,
        "rank": 1,
        "width": 4,
        "examples": 20,
        "steps": 30,
        "lr": 0.01,
        "sigma": 0.05,
    }
    (only,) = document["runs"]
    assert only["steps"] == list(range(31))
    for method in only["methods"]:
        assert len(method["training_loss"]) == len(method["validation_loss"]) == 31
        assert method["trace"] > method["lambda_1"] > 0
        low, high = method["estimated_trace"]["interval"]
        assert low < method["estimated_trace"]["value"] < high
        assert method["estimated_eigenvalues"]["largest"][0]["residual_norm"] >= 0
    assert document["cost"]["gradient"] == 30 * 4


def test_one_seed_one_document(run):
    first, second = (without_times(json.loads(run(*FAST, "--json", "--seed", "3").stdout)) for _ in range(2))
    assert first == second
    assert first["runs"][0]["seed"] == 3


def test_several_seeds(run):
    result = run(*MINUTE, "--seeds", "3", "--out", "all.json")
    document = json.loads(Path("all.json").read_text())
    assert [shown["seed"] for shown in document["runs"]] == [1, 2, 3]
    assert f"with {document['ordered']} of 3 seeds" in result.stdout
    assert "seeds 1 to 3" in result.stdout
    assert "Training loss, mean of 3 seeds" in result.stdout


def test_a_picture(run):
    result = run(*FAST, "--png", "curves.png", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "Saved to curves.png" in result.stdout
    content = Path("curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1560, 585)
    assert run(*FAST, "--png", "curves.svg").exit_code == 0
    assert "σ = 0.05" in Path("curves.svg").read_text(encoding="utf-8")


def test_the_papers_size(run, monkeypatch):
    asked = []

    def noted(settings, seeds, meter):
        asked.append(settings)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(module, "sensing", noted)
    assert "sigma 0.08: at the .016 that the paper prints" in run("nso", "sensing", "--paper").stderr
    assert "paper" not in run("nso", "sensing", "--paper", "--sigma", "0.016").stderr
    printed, settings = asked
    assert printed.sigma == 0.08
    assert (settings.dimension, settings.rank, settings.examples, settings.width) == (100, 5, 2500, 100)
    assert (settings.lr, settings.sigma, settings.steps) == (0.00125, 0.016, 3000)


WRONG = {
    "size": (("--dimension", "0"), 2, "dimension: found 0, expected a whole number of at least 1"),
    "rank": (("--dimension", "4", "--rank", "5"), 2, "rank: found 5, expected at most the dimension, 4"),
    "lr": (("--lr", "nan"), 2, "lr: found nan, expected a positive number"),
    "sigma": (("--sigma", "-1"), 2, "sigma: found -1, expected a number of at least 0"),
    "seed": (("--seed", "-1"), 2, "found --seed -1 and --seeds 1, expected at least 0 and at least 1"),
    "seeds": (("--seeds", "0"), 2, "--seeds 0"),
    "word": (("--steps", "many"), 2, "--steps"),
    "unknown": (("--stepps", "3"), 2, "--stepps"),
    "format": (("--png", "curves.jpg"), 2, "curves.jpg: found a name that ends in '.jpg', expected .png or .svg"),
    "folder": (("--out", "."), 2, "found a folder, expected a file to write"),
    "divergence": (("--lr", "1"), 3, "GD diverged: its loss is"),
    "memory": (("--examples", "1000000000000"), 3, "lower examples or dimension"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_requests(run, name):
    args, code, words = WRONG[name]
    result = run("nso", "sensing", *args)
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert list(Path().iterdir()) == []


def test_without_matplotlib_a_picture_is_refused_before_the_work(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(module, "sensing", None)
    result = run(*FAST, "--png", "curves.png")
    assert result.exit_code == 3
    assert "--png: needs the package matplotlib, which is not installed: pip install 'hessdiag[plot]'" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "part.json"), "interrupted: 1 of 3 seeds finished and saved in part.json"),
        ((), "interrupted: 1 of 3 seeds finished and not saved, for want of --out"),
    ],
)
def test_ctrl_c_keeps_the_seeds_that_are_finished(run, monkeypatch, options, words):
    original = module.sensing

    def interrupted(*args):
        yield next(original(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sensing", interrupted)
    result = run(*MINUTE, "--seeds", "3", *options)
    assert result.exit_code == 130
    assert words in result.stderr
    assert result.stdout == ""
    if options:
        document = json.loads(Path("part.json").read_text())
        assert (document["status"], len(document["runs"])) == ("partial", 1)


def test_ctrl_c_in_the_first_seed(run, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "simulate", interrupted)
    result = run(*MINUTE)
    assert result.exit_code == 130
    assert "interrupted: no seed was finished" in result.stderr
