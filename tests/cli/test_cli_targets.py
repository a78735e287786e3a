"""What a TARGET can be: a spec, a checkpoint with what the command line says of it, a trained run's folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import save_file

import hessdiag

DATA = "format: npz\npath: data.npz\ninputs: x\ntargets: y\nbatch_size: 12\n"
OWN = ["--model", "model.py:build", "--data", "sets/data.yaml"]


@pytest.fixture
def sets(folder: Path) -> Path:
    """The data's file in a folder of its own, beside the data."""
    sets = folder / "sets"
    sets.mkdir()
    shutil.move(folder / "data.npz", sets / "data.npz")
    (sets / "data.yaml").write_text(DATA)
    return sets


def report(result) -> dict:
    assert result.exit_code == 0, result.stderr
    return tiny.without_times(json.loads(result.stdout))


def test_a_checkpoint_gives_the_report_of_the_spec_that_says_the_same(folder, run, sets):
    (folder / "same.yaml").write_text(tiny.SPEC.partition("audit:")[0].replace("data.npz", "sets/data.npz"))
    spec = report(run("trace", "same.yaml", "--json"))
    own = report(run("trace", "weights.safetensors", *OWN, "--json"))
    own["target"]["checkpoint"]["path"] = spec["target"]["checkpoint"]["path"]
    assert own == spec


def test_its_loss_and_its_settings(folder, run, sets):
    mse = "import torch\ndef loss(o, y):\n    return (o - torch.nn.functional.one_hot(y, 3)).square().mean(1)\n"
    (folder / "loss.py").write_text(mse)
    named = report(run("trace", "weights.safetensors", *OWN, "--loss", "loss.py:loss", "--json"))
    problem = hessdiag.load("weights.safetensors", model="model.py:build", data="sets/data.yaml", loss="loss.py:loss")
    assert named["loss"] == problem.loss_value
    smoothed = report(run("trace", "weights.safetensors", *OWN, "--set", "loss.label_smoothing=0.5", "--json"))
    plain = report(run("trace", "weights.safetensors", *OWN, "--loss", "cross_entropy", "--json"))
    assert smoothed["loss"] > plain["loss"] != named["loss"]
    small = report(run("trace", "weights.safetensors", *OWN, "--max-examples", "7", "--json"))
    assert small["data"]["examples"] == 7


def test_names_on_the_command_line_start_from_the_current_folder(folder, run, sets, monkeypatch):
    monkeypatch.chdir(sets)
    args = ["../weights.safetensors", "--model", "../model.py:build", "--data", "data.yaml"]
    assert run("trace", *args).exit_code == 0


FAULTS = {
    "no such checkpoint": (["none.pt", *OWN], "none.pt: no such file or folder (looked in DIR)"),
    "no such data": (
        ["weights.safetensors", *OWN[:2], "--data", "none.yaml"],
        "none.yaml: no such file (looked in DIR)",
    ),
    "no such factory's file": (
        ["weights.safetensors", "--model", "nets.py:build", *OWN[2:]],
        "--model nets.py:build: model.class_path: no such file: 'DIR/nets.py'",
    ),
    "no such factory": (
        ["weights.safetensors", "--model", "model.py:make", *OWN[2:]],
        "--model model.py:make: model.class_path: found no 'make' in DIR/model.py, expected one of: build",
    ),
    "no factory": (
        ["weights.safetensors", *OWN[2:]],
        "weights.safetensors: model.class_path: missing; expected what builds the model",
    ),
    "no such loss": (
        ["weights.safetensors", *OWN, "--loss", "crossentropy"],
        "--loss crossentropy: loss: found 'crossentropy', expected cross_entropy,",
    ),
    "a spec with --model": (["audit.yaml", *OWN[:2]], "--model model.py:build: goes with a checkpoint and --data"),
    "a spec with --data": (
        ["audit.yaml", *OWN[2:]],
        "--data sets/data.yaml: goes with a checkpoint, but audit.yaml is",
    ),
    "a spec with --loss": (["audit.yaml", "--loss", "mse"], "--loss mse: goes with a checkpoint and --data"),
    "a checkpoint alone": (["weights.safetensors"], "weights.safetensors: by its name a checkpoint; expected a spec"),
    "a folder alone": (["."], ".: found a folder, expected a spec (a YAML file), a folder that `hessdiag nso train`"),
    "not there": (["none.yaml"], "none.yaml: no such file (looked in DIR)"),
}


@pytest.mark.parametrize(("args", "message"), FAULTS.values(), ids=FAULTS)
def test_faults(folder, run, sets, args, message):
    result = run("trace", *args)
    assert result.exit_code == 2
    assert message in result.stderr.replace(str(folder), "DIR")


BAD_DATA = {
    "format: npz\npath: data.npz\ninputs: z\ntargets: y": "3:9: data.inputs: found no array 'z' in data.npz",
    "format: npz\npath: datas.npz\ninputs: x\ntargets: y": "2:7: data.path: no such file: 'datas.npz' (looked in DIR",
    "format: nzp": "1:9: data.format: found 'nzp', expected npz,",
    "format: npz\npath: data.npz\ninputs: x\n": "1:1: data.targets: missing; expected the name of what the loss",
    "": "1:1: found an empty file; expected a mapping as under `data:` of a spec, with the key format",
    "- x": "1:1: found a list at the top; expected a mapping as under `data:` of a spec",
    "data: {format: npz}": "1:1: found a whole spec, expected what stands under its `data:` alone; or give the spec",
    "path: data.npz": "1:1: data.format: missing; expected the format of the data",
}


@pytest.mark.parametrize(("text", "message"), BAD_DATA.items())
def test_faults_of_the_datas_file_have_their_place(folder, run, sets, text, message):
    (sets / "data.yaml").write_text(text)
    result = run("trace", "weights.safetensors", *OWN)
    assert result.exit_code == 2
    assert f"sets/data.yaml:{message}" in result.stderr.replace(str(folder), "DIR")


def test_a_trained_run_is_its_last_weights_under_its_spec_unsmoothed(folder, run):
    out = folder / "run"
    out.mkdir()
    save_file(tiny.network().state_dict(), out / "last.safetensors")
    save_file(tiny.network(hidden=9).state_dict(), out / "best.safetensors")  # of the wrong shape, to be noticed
    spec = tiny.SPEC.replace("model.py", str(folder / "model.py")).replace("data.npz", str(folder / "data.npz"))
    (out / "spec.yaml").write_text(
        spec.replace("weights.safetensors", str(folder / "none.pt"))
        + "loss: {name: cross_entropy, label_smoothing: 0.1}\n"
    )
    own, plain = report(run("trace", "run", "--json")), report(run("trace", "audit.yaml", "--json"))
    assert own["target"].pop("checkpoint")["path"] == "last.safetensors"
    plain["target"].pop("checkpoint")
    assert own == plain
    best = run("trace", "run", "--checkpoint", "run/best.safetensors")
    assert best.exit_code == 3
    assert "does not fit the model" in best.stderr


def test_a_folder_of_a_causal_language_model_brings_its_loss(folder):
    from hessdiag.spec.parse import spec_tree
    from hessdiag.spec.targets import find_target

    (folder / "lm").mkdir()
    (folder / "lm" / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    (folder / "data.yaml").write_text(DATA)

    def loss(*overrides: str, **options: str) -> object:
        root, _ = spec_tree(find_target(folder / "lm", data=folder / "data.yaml", **options), overrides)
        node = root and root.child("loss")
        return node and node.plain()

    assert loss() == "causal_lm"
    assert loss(loss="mse") == "mse"
    assert loss(model="model.py:build") is None  # whose outputs nobody knows
    (folder / "lm" / "config.json").write_text('{"problem_type": "regression"}')
    assert loss() == "mse"
    for text in ("[", "3", "null", '{"architectures": 3}', '{"architectures": [3]}', "[" * 100_000):
        (folder / "lm" / "config.json").write_text(text)
        assert loss() is None
    (folder / "lm" / "config.json").unlink()
    os.mkfifo(folder / "lm" / "config.json")  # whose reader would wait for ever
    assert loss() is None
