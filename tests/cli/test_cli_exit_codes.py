"""What bad input gets: the exit code of the contract, a message that names the thing, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

OPTIONS = {
    "unknown option": (["audit", "audit.yaml", "--bogus"], 2, ["--bogus"]),
    "unknown command": (["bogus"], 2, ["bogus"]),
    "no target": (["audit"], 2, ["TARGET"]),
    "two targets": (["audit", "audit.yaml", "other.yaml"], 2, ["other.yaml"]),
    "missing target": (["audit", "nope.yaml"], 2, ["nope.yaml: no such file"]),
    "folder as target": (["audit", "."], 2, ["found a folder, expected a spec"]),
    "checkpoint as target": (["audit", "weights.safetensors"], 2, ["expected a spec", "model.checkpoint"]),
    "malformed set": (["audit", "audit.yaml", "--set", "x"], 2, ["--set x", "KEY.PATH=VALUE"]),
    "set of unknown key": (["audit", "audit.yaml", "--set", "data.nope=1"], 2, ["--set data.nope=1", "unknown key"]),
    "set of wrong type": (["audit", "audit.yaml", "--set", "data.batch_size=a"], 2, ["found 'a'", "whole number"]),
    "batch size 0": (["audit", "audit.yaml", "--batch-size", "0"], 2, ["--batch-size"]),
    "max examples 0": (["audit", "audit.yaml", "--max-examples", "0"], 2, ["--max-examples"]),
    "huge batch size": (["audit", "audit.yaml", "--batch-size", "9" * 25], 2, ["--batch-size", "25 digits"]),
    "negative seed": (["audit", "audit.yaml", "--seed", "-1"], 2, ["--seed"]),
    "unknown dtype": (["audit", "audit.yaml", "--dtype", "half"], 2, ["float32", "bfloat16"]),
    "unknown device": (["audit", "audit.yaml", "--device", "nonsense"], 2, ["'nonsense'", "cuda:N"]),
    "unsupported device": (["audit", "audit.yaml", "--device", "meta"], 2, ["'meta'", "cuda:N"]),
    "numbered cpu": (["audit", "audit.yaml", "--device", "cpu:3"], 2, ["'cpu:3'", "expected auto, cpu"]),
    "missing checkpoint": (
        ["audit", "audit.yaml", "--checkpoint", "nope.pt"],
        2,
        ["--checkpoint ", "nope.pt", "no such file"],
    ),
    "folder as checkpoint": (
        ["audit", "audit.yaml", "--checkpoint", "."],
        3,
        ["found a folder that is no checkpoint", "name the file"],
    ),
    "out is a folder": (["audit", "audit.yaml", "--out", "."], 2, ["found a folder, expected a file"]),
    "out under a file": (["audit", "audit.yaml", "--out", "model.py/x.json"], 2, ["model.py/x.json", "not be written"]),
    "out is the spec": (["audit", "audit.yaml", "--out", "audit.yaml"], 2, ["overwrite what is measured"]),
    "out is the checkpoint": (["audit", "audit.yaml", "--out", "weights.safetensors"], 2, ["overwrite what is mea"]),
    "out is the data": (["audit", "audit.yaml", "--out", "./data.npz"], 2, ["overwrite what is measured"]),
    "out is in a folder that is measured": (
        ["audit", "audit.yaml", "--checkpoint", ".", "--out", "model.py"],
        2,
        ["overwrite what is measured"],
    ),
    "top 0": (["eigs", "audit.yaml", "--top", "0"], 2, ["--top"]),
    "more than parameters": (
        ["eigs", "audit.yaml", "--top", "3000"],
        2,
        ["--top 3000: audit.eigenvalues.top: found top 3000 and bottom 1, expected at most 43 together"],
    ),
    "unknown method": (["eigs", "audit.yaml", "--method", "qr"], 2, ["lanczos", "power"]),
    "rtol 0": (["eigs", "audit.yaml", "--rtol", "0"], 2, ["--rtol 0", "greater than 0"]),
    "rtol nan": (["trace", "audit.yaml", "--rtol", "nan"], 2, ["--rtol nan", "greater than 0"]),
    "too few products": (["eigs", "audit.yaml", "--max-matvecs", "1"], 2, ["max_matvecs: found 1", "at least 6"]),
    "sigma no number": (["gap", "audit.yaml", "--sigma", "bad"], 2, ["--sigma bad", "expected a number"]),
    "sigma of count 0": (["gap", "audit.yaml", "--sigma", "0.1:0.2:0"], 2, ["--sigma 0.1:0.2:0", "found '0'"]),
    "sigma negative": (["gap", "audit.yaml", "--sigma", "-0.1"], 2, ["--sigma -0.1", "greater than 0"]),
    "one draw": (["gap", "audit.yaml", "--draws", "1"], 2, ["--draws"]),
    "one step": (["density", "audit.yaml", "--steps", "1"], 2, ["--steps"]),
    "no such module": (["audit", "audit.yaml", "--set", "model.class_path=nopkg.m.f"], 2, ["no module 'nopkg'"]),
    "no such name": (
        ["audit", "audit.yaml", "--set", "model.class_path=model.py:biuld"],
        2,
        ["found no 'biuld' in model.py, expected one of: build"],
    ),
    "no such file": (["audit", "audit.yaml", "--set", "model.class_path=no.py:f"], 2, ["no such file: 'no.py'"]),
    "unknown loss": (["audit", "audit.yaml", "--set", "loss=nope"], 2, ["found 'nope', expected cross_entropy"]),
    "bad arguments": (
        ["audit", "audit.yaml", "--set", "model.init_args.nope=3"],
        3,
        ["model.py:build(nope=3) failed: TypeError", "--debug"],
    ),
    "nothing selected": (["audit", "audit.yaml", "--set", 'parameters.exclude=["*"]'], 3, ["select nothing"]),
    "pattern without match": (["audit", "audit.yaml", "--set", 'parameters.include=["zz*"]'], 3, ["'zz*'", "0.weight"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options(folder, run, name):
    args, code, words = OPTIONS[name]
    check(run(*args), code, words)


def test_cuda_where_there_is_none(folder, run):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    check(run("audit", "audit.yaml", "--device", "cuda"), 2, ["'cuda'", "no CUDA device", "use cpu"])


def test_more_eigenvalues_than_parameters_in_the_spec_have_their_place(folder, run):
    spec = folder / "audit.yaml"
    spec.write_text(tiny.SPEC.replace("top: 2", "top: 90"))
    check(run("audit", "audit.yaml"), 2, ["audit.yaml:11:22: audit.eigenvalues.top: found top 90"])
    spec.write_text(tiny.SPEC.replace("{top: 2, bottom: 1}", "{bottom: 90}"))
    check(run("audit", "audit.yaml"), 2, ["audit.yaml:11:16: audit.eigenvalues.top: found top 5 and bottom 90"])
    assert not Path(".hessdiag/last-audit.json").exists()


def test_faults_of_a_spec_come_all_at_once_with_their_places(folder, run):
    (folder / "audit.yaml").write_text(tiny.SPEC.replace("top: 2", "tpo: 2").replace("data.npz", "no.npz"))
    result = run("audit", "audit.yaml")
    check(result, 2, ["audit.yaml:6:9: data.path: no such file", "audit.yaml:11:17: audit.eigenvalues.tpo: unknown"])
    assert len(result.stderr.strip().splitlines()) == 2


def test_validate_says_the_same_and_what_is_valid(folder, run):
    (folder / "bad.yaml").write_text(tiny.SPEC.replace("top: 2", "tpo: 2"))
    result = run("validate", "audit.yaml", "bad.yaml", "nope.yaml")
    assert result.exit_code == 2
    assert result.stdout == "audit.yaml: valid\n"
    assert "bad.yaml:11:17:" in result.stderr
    assert "nope.yaml: no such file" in result.stderr


CHECKPOINTS = {
    "zero bytes": (lambda path: path.write_bytes(b""), ["0 bytes"]),
    "random bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(999)), ["neither safetensors nor"]),
    "truncated": (lambda path: cut(path, 0.5), ["damaged torch file", "copy or save it again"]),
    "other shapes": (lambda path: torch.save(tiny.weights(7), path), ["3 tensors have another shape", "init_args"]),
    "other names": (
        lambda path: torch.save({f"{name}.a": item for name, item in tiny.weights().items()}, path),
        ["lacks 4 of the model's 4 tensors", "has 4 tensors that the model lacks"],
    ),
    "NaN": (lambda path: torch.save(spoilt(float("nan")), path), ["NaN or infinite", "0.weight"]),
    "infinite": (lambda path: torch.save(spoilt(float("inf")), path), ["NaN or infinite", "0.weight"]),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_bad_checkpoints(folder, run, name):
    write, words = CHECKPOINTS[name]
    write(folder / "bad.pt")
    check(run("audit", "audit.yaml", "--checkpoint", "bad.pt"), 3, words)


class Evil:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return os.mkdir, ("RAN",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(folder, run, zipped):
    torch.save({**tiny.weights(), "deep": [{"er": Evil()}]}, "evil.pt", _use_new_zipfile_serialization=zipped)
    check(run("audit", "audit.yaml", "--checkpoint", "evil.pt"), 3, ["refused", f"{os.mkdir.__module__}.mkdir"])
    assert not Path("RAN").exists()
    pickle.loads(pickle.dumps(Evil()))  # it would have
    assert Path("RAN").exists()


DATA = {
    "empty": ({"x": np.zeros((0, 4), "f"), "y": np.zeros(0, int)}, ["data.npz holds no examples", "at least one"]),
    "lengths": ({"y": np.zeros(20, int)}, ["inputs 30, targets 20"]),
    "targets too big": ({"y": np.full(30, 3)}, ["found targets from 3 to 3, expected class numbers from 0 to 2"]),
    "targets negative": ({"y": np.full(30, -1)}, ["found targets from -1 to -1"]),
    "targets real": ({"y": np.zeros(30, "f")}, ["float32", "expected int64 class numbers"]),
    "NaN in the inputs": ({"x": np.full((30, 4), np.nan, "f")}, ["the loss is nan on batch 0"]),
    "objects": ({"y": np.array([None] * 30)}, ["array 'y'", "Python objects"]),
    "shapes": ({"x": np.zeros((30, 9), "f")}, ["failed on batch 0", "(12, 9)"]),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_data(folder, run, name):
    changed, words = DATA[name]
    tiny.write(folder, **changed)
    check(run("audit", "audit.yaml"), 3, words)


def test_an_array_that_is_not_there_is_a_fault_of_the_spec_at_its_place(folder, run):
    tiny.write(folder, y=None)
    check(
        run("audit", "audit.yaml"), 2, ["audit.yaml:8:12: data.targets: found no array 'y' in data.npz, which has: x"]
    )
    where = "--set data.inputs=[x, z]: data.inputs: found no array 'z'"
    tiny.write(folder)
    check(run("audit", "audit.yaml", "--set", "data.inputs=[x, z]"), 2, [where])


def test_a_name_that_is_not_in_its_file_is_told_at_its_place(folder, run):
    text = (folder / "audit.yaml").read_text()
    (folder / "audit.yaml").write_text(text.replace("model.py:build", "model.py:biuld"))
    check(run("audit", "audit.yaml"), 2, ["audit.yaml:2:15: model.class_path: found no 'biuld' in model.py"])


def test_truncated_data(folder, run):
    cut(folder / "data.npz", 0.7)
    check(run("audit", "audit.yaml"), 3, ["data.npz is not a readable .npz archive"])


CODE = {
    "raises at import": ("1 / 0", 3, ["model.py: importing it failed: ZeroDivisionError"]),
    "ends the program at import": ("import sys; sys.exit(1)", 3, ["importing it failed: SystemExit: 1"]),
    "is no Python": ("def build(:", 3, ["importing it failed: SyntaxError"]),
    "builds nothing": ("def build(): pass", 2, ["built a NoneType, expected an nn.Module"]),
    "raises": ("def build(): raise ValueError('boom')", 3, ["model.py:build() failed: ValueError: boom"]),
    "ends the program": ("import sys\ndef build(): sys.exit(0)", 3, ["build() failed: SystemExit: 0"]),
    "raises what is no Exception": ("def build(): raise BaseException('odd')", 3, ["internal error: BaseException"]),
    "is no function": ("build = 3", 2, ["build is an int, expected a function"]),
    "has no parameters": (
        "from torch import nn\ndef build(): return nn.ReLU()",
        3,
        ["has 4 tensors that the model lacks"],
    ),
    "raises in the forward": (
        f"{tiny.MODEL}\nclass Net(nn.Sequential):\n    def forward(self, x): raise ValueError('boom')\n"
        "inner = build\ndef build(): return Net(*inner())",
        3,
        ["failed on batch 0", "ValueError: boom", "--debug"],
    ),
    "ends the program in the forward": (
        f"{tiny.MODEL}\nclass Net(nn.Sequential):\n    def forward(self, x): raise SystemExit(0)\n"
        "inner = build\ndef build(): return Net(*inner())",
        3,
        ["ended the program (sys.exit(0))"],
    ),
    "runs out of memory": (
        f"{tiny.MODEL}\nclass Net(nn.Sequential):\n    def forward(self, x): raise MemoryError\n"
        "inner = build\ndef build(): return Net(*inner())",
        3,
        ["out of memory", "lower data.batch_size"],
    ),
}


@pytest.mark.parametrize("name", CODE)
def test_bad_code_of_the_user(folder, run, name):
    code, exit_code, words = CODE[name]
    (folder / "model.py").write_text(code)
    check(run("audit", "audit.yaml"), exit_code, words)


def test_non_finite_loss(folder, run):
    (folder / "loss.py").write_text("def loss(outputs, targets): return outputs.sum() * float('inf')")
    check(run("audit", "audit.yaml", "--set", "loss=loss.py:loss"), 3, ["the loss is", "on batch 0", "finite"])


def test_non_finite_gradient_is_refused_before_it_spoils_the_numbers(folder, run):
    (folder / "loss.py").write_text(
        "def loss(outputs, targets):\n"
        "    units = outputs.square().sum(1)\n"
        "    return (units * 0).sqrt() if len(units) == 6 else units\n"  # the last batch alone
    )
    check(run("audit", "audit.yaml", "--set", "loss=loss.py:loss"), 3, ["gradient", "nan", "finite"])


def test_an_unexpected_exception_is_a_3_and_keeps_what_was_finished(folder, run, monkeypatch):
    from hessdiag.workflows import sections

    def broken(job):
        raise KeyError("a bug")

    monkeypatch.setitem(sections._STEPS, "density", broken)
    result = run("audit", "audit.yaml", "--set", "audit.density.steps=4")
    check(result, 3, ["internal error: KeyError: 'a bug'", "--debug"])
    saved = json.loads(Path(".hessdiag/last-audit.json").read_text())
    assert saved["status"] == "failed"
    assert {"eigenvalues", "trace", "gap"} <= saved.keys()
    assert "density" not in saved


def test_a_full_disk_behind_stdout_is_said(folder, run, monkeypatch):
    from hessdiag.cli import measure

    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(measure, "stdout_console", full)
    check(
        run("eigs", "audit.yaml"), 3, ["could not be printed", "No space left", "it is complete in .hessdiag/last-eig"]
    )
    assert json.loads(Path(".hessdiag/last-eigs.json").read_text())["status"] == "complete"


@pytest.mark.parametrize(
    "args", [["nope.yaml"], ["audit.yaml", "--checkpoint", "model.py"], ["audit.yaml", "--set", "loss=mse"]]
)
def test_debug_shows_the_traceback(folder, run, args):
    plain, debug = run("audit", *args), run("audit", *args, "--debug")
    assert plain.exit_code == debug.exit_code != 0
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert plain.stderr.splitlines()[0] in debug.stderr


def check(result, code, words):
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert [word for word in words if word not in result.stderr] == [], result.stderr
    assert "Traceback" not in result.stderr


def cut(path, share):
    if not path.exists():
        torch.save(tiny.weights(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def spoilt(value):
    tensors = tiny.weights()
    tensors["0.weight"] = tensors["0.weight"].clone()
    tensors["0.weight"][1, 2] = value
    return tensors


def test_a_message_holds_nothing_that_a_terminal_obeys(folder, run):
    name = "none\x1b[31m\u202eé.yaml"
    result = run("trace", name)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: none\\x1b[31m\\u202eé.yaml: no such file")
