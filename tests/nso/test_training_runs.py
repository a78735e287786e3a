"""A whole training run on a tiny network: what it writes, that it goes on bit for bit, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

import hessdiag
from hessdiag.errors import CheckpointError, MeasurementError, UsageError
from hessdiag.nso.loop import Progress
from hessdiag.nso.train import train
from hessdiag.spec import load_spec
from hessdiag.spec.targets import find_target

SETTINGS = (
    "train.epochs=3",
    "train.batch_size=8",
    "train.lr=0.05",
    "train.validation=0.2",
    "train.monitor_share=0.999",
    "audit.gap=null",
    "audit.trace.rtol=0.5",
)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    folder = tmp_path / "spec"
    folder.mkdir()
    tiny.write(folder)
    return folder / "audit.yaml"


def run(spec_file: Path, out: Path, *more: str, **options: Any) -> list[dict[str, Any]]:
    spec = load_spec(find_target(spec_file), [*SETTINGS, *more])
    return train(spec, out, **options).history


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    history = run(spec_file, out)
    names = {path.name for path in out.iterdir()}
    assert names >= {"last.safetensors", "best.safetensors", "state.pt", "spec.yaml", "history.jsonl", "report.json"}
    assert rows(out) == history
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert [row["step"] for row in history] == [0, 3, 6, 9]
    assert [row["gradients"] for row in history] == [0, 2, 4, 6]  # two-point: two a step
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[0]["evaluated"] == history[0]["monitored"] == "24 of 24 training examples (seed 0)"
    for row in history:
        assert row["generalisation_gap"] == pytest.approx(row["validation_loss"] - row["loss"])
        assert 0 <= row["accuracy"] <= 1
    before = load_file(spec_file.parent / "weights.safetensors")
    after = load_file(out / "last.safetensors")
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_folder_is_a_target(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(spec_file, out)
    report = json.loads((out / "report.json").read_text())
    problem = hessdiag.load(out)
    assert problem.loss_value == report["loss"]
    assert hessdiag.audit(problem).trace.value == report["trace"]["value"]  # type: ignore[union-attr]
    best = min(rows(out), key=lambda row: row["validation_loss"])["epoch"]
    same = load_file(out / "best.safetensors"), load_file(out / "last.safetensors")
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0]) is (best == 3)


def test_sharpness_is_that_of_the_weights(spec_file: Path, tmp_path: Path) -> None:
    history = run(spec_file, tmp_path / "run", "train.validation=0", "train.epochs=80", "train.monitor_every=40")
    problem = hessdiag.load(tmp_path / "run")
    H = hessdiag.HessianOperator(problem)
    last = history[-1]
    low, high = last["trace_interval"]
    assert low <= hessdiag.trace(H, rtol=1e-4).value <= high
    assert last["largest_eigenvalue"] == pytest.approx(hessdiag.eigenvalues(H, top=1).largest[0].value, rel=0.03)
    assert last["edge_of_stability"] == pytest.approx(last["lr"] * last["largest_eigenvalue"] / 2)
    assert last["loss"] == pytest.approx(problem.loss_value, rel=1e-6)
    assert abs(last["gap"] - 1e-4 / 2 * last["trace"]) < 1e-4 * last["trace"]
    assert last["monitor_gradients"] > 0


class Killed(BaseException):
    """Nothing in a program catches it."""


def killer(after: int) -> Callable[[Progress], None]:
    seen = 0

    def watch(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise Killed

    return watch


@pytest.mark.parametrize("after", [1, 2, 4, 5, 9, 13])
def test_a_run_goes_on_bit_for_bit(spec_file: Path, tmp_path: Path, after: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with_dropout(spec_file)
    run(spec_file, whole)
    with pytest.raises(Killed):
        run(spec_file, broken, step=killer(after))
    run(spec_file, broken, resume=True)
    for name in ("last.safetensors", "best.safetensors", "history.jsonl", "spec.yaml"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_a_run_goes_on_from_within_an_epoch(spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hessdiag.nso.loop._SAVE_EVERY", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with_dropout(spec_file)
    run(spec_file, whole, "train.optimizer=AdamW", "train.schedule=cosine")
    with pytest.raises(Killed):
        run(spec_file, broken, "train.optimizer=AdamW", "train.schedule=cosine", step=killer(7))
    state = torch.load(broken / "state.pt", weights_only=True)
    assert (state["epoch"], state["minibatch"]) == (1, 2)
    run(spec_file, broken, "train.optimizer=AdamW", "train.schedule=cosine", resume=True)
    for name in ("last.safetensors", "history.jsonl"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def with_dropout(spec_file: Path) -> None:
    """Random in training: the generator's state must go on too."""
    model = spec_file.parent / "model.py"
    model.write_text(model.read_text().replace("nn.Tanh()", "nn.Sequential(nn.Tanh(), nn.Dropout(0.3))"))


def kill_after(seconds: float, spec_file: Path, out: Path, *more: str) -> None:
    command = [
        sys.executable,
        "-m",
        "hessdiag",
        "nso",
        "train",
        str(spec_file),
        "--out",
        str(out),
        "--quiet",
        "--resume",
    ]
    settings = [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
    process = subprocess.Popen([*command, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.returncode in (0, -9), process.stderr.read()  # type: ignore[union-attr]
    process.stderr.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("moments", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment(spec_file: Path, tmp_path: Path, moments: int) -> None:
    with_dropout(spec_file)
    more = ("train.epochs=25", "train.monitor_every=10")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.perf_counter()
    kill_after(600, spec_file, whole, *more)
    took = time.perf_counter() - began
    random = np.random.default_rng(moments)
    for _ in range(moments):
        kill_after(float(took * random.uniform(0.5, 1)), spec_file, broken, *more)
    kill_after(600, spec_file, broken, *more)
    for name in ("last.safetensors", "best.safetensors", "history.jsonl"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    assert [row["epoch"] for row in rows(broken)] == list(range(26))


def test_a_folder_in_use(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(spec_file, out, "train.epochs=1")
    with pytest.raises(UsageError, match="found a run there: --resume goes on with it"):
        run(spec_file, out, "train.epochs=1")
    with pytest.raises(UsageError, match=r"has another spec .*epochs: 1.* there, .*epochs: 2.* here"):
        run(spec_file, out, "train.epochs=2", resume=True)
    before = (out / "last.safetensors").read_bytes()
    run(spec_file, out, "train.epochs=1", resume=True)  # it is over: nothing is trained
    assert (out / "last.safetensors").read_bytes() == before
    with pytest.raises(UsageError, match="found a folder with other things in it, expected a new or empty one"):
        run(spec_file, spec_file.parent)


def test_a_damaged_state(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(spec_file, out, "train.epochs=1")
    (out / "state.pt").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be read .*: copy it again"):
        run(spec_file, out, "train.epochs=1", resume=True)


def test_divergence_names_the_step_and_keeps_the_last_weights(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(MeasurementError, match=r"loss is (nan|inf).*diverged.*last\.safetensors holds the weights"):
        run(spec_file, out, "train.lr=1e38", "train.schedule=constant", "train.method=sgd", "train.epochs=20")
    kept = load_file(out / "last.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in kept.values())
    assert rows(out)


def test_a_step_that_fails_is_named(spec_file: Path, tmp_path: Path) -> None:
    """BatchNorm takes no single example in training: 24 in minibatches of 23."""
    model = spec_file.parent / "model.py"
    model.write_text(model.read_text().replace("nn.Tanh()", "nn.Sequential(nn.Tanh(), nn.BatchNorm1d(hidden))"))
    more = ("train.batch_size=23", "model.checkpoint=null")
    with pytest.raises(
        MeasurementError, match=r"step 2 \(epoch 1, 1 examples\) failed: ValueError: Expected more than 1"
    ):
        run(spec_file, tmp_path / "run", *more)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="found a file, expected a new or empty folder"):
        run(spec_file, tmp_path / "file")


def test_a_minibatch_without_targets_moves_nothing(spec_file: Path, tmp_path: Path) -> None:
    """Minibatches of one example, of which a third have a target that is ignored."""
    history = run(
        spec_file,
        tmp_path / "run",
        "train.batch_size=1",
        "loss={name: cross_entropy, ignore_index: 2}",
        "train.epochs=1",
    )
    assert np.isfinite(history[-1]["training_loss"])
    assert history[-1]["loss"] < history[0]["loss"]


def test_early_stopping(spec_file: Path, tmp_path: Path) -> None:
    history = run(
        spec_file,
        tmp_path / "run",
        "train.lr=1e-12",
        "train.early_stopping=2",
        "train.epochs=30",
        "train.monitor_every=0",
    )
    assert len(history) < 31
    best = min(range(len(history)), key=lambda epoch: history[epoch]["validation_loss"])
    assert len(history) - 1 - best == 2
    assert "trace" not in history[0]


@pytest.mark.parametrize("method", ["sgd", "label-smoothing", "wp-sgd", "sam", "asam", "rsam", "bsam", "rsp", "sap"])
def test_every_method_trains(spec_file: Path, tmp_path: Path, method: str) -> None:
    history = run(spec_file, tmp_path / "run", f"train.method={method}", "train.monitor_every=0")
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize(("method", "gradients"), [("rsp", 2), ("sap", 3)])
def test_full_gradients_take_one_step_an_epoch(spec_file: Path, tmp_path: Path, method: str, gradients: int) -> None:
    history = run(spec_file, tmp_path / "run", f"train.method={method}", "train.gradient=full", "train.monitor_every=0")
    assert [row["step"] for row in history] == [0, 1, 2, 3]
    assert [row["gradients"] for row in history] == [0, gradients, 2 * gradients, 3 * gradients]
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_pull_to_the_initial_weights(spec_file: Path, tmp_path: Path) -> None:
    start = load_file(spec_file.parent / "weights.safetensors")
    moved = []
    for strength in (0.0, 5.0):
        out = tmp_path / f"{strength}"
        run(spec_file, out, f"train.distance_l2={strength}", "train.monitor_every=0")
        end = load_file(out / "last.safetensors")
        moved.append(sum(float((end[name] - start[name]).square().sum()) for name in start) ** 0.5)
    assert moved[1] < 0.6 * moved[0]


def test_label_smoothing_wants_labels(spec_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found 'label-smoothing', .*the loss nll has no label_smoothing"):
        run(spec_file, tmp_path / "run", "train.method=label-smoothing", "loss=nll")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.optimizer=Sgd", r"found 'Sgd', expected one of torch\.optim: .*AdamW"),
        ("train.optimizer={name: AdamW, beta: 1}", "found option 'beta', expected those of AdamW: betas"),
        ("train.optimizer=LBFGS", "found LBFGS, expected an optimizer that steps once"),
    ],
)
def test_optimizers_that_do_not_fit(spec_file: Path, tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(spec_file, tmp_path / "run", setting)
    with pytest.raises(UsageError, match=r"train\.momentum: found 0\.9, but AdamW has no momentum"):
        run(spec_file, tmp_path / "other", "train.optimizer=AdamW", "train.momentum=0.9")
