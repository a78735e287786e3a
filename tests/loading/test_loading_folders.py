"""Folders of training runs: the weights are read, and of what lies beside them not a byte."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file
from small_transformers import Evil, write_evil
from torch import nn

from hessdiag import HessianOperator
from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints import Reading, identify
from hessdiag.problem import Problem


def assert_same(found: Problem) -> None:
    expected = Problem(tiny.network(), "cross_entropy", tiny.batches())
    assert found.loss_value == expected.loss_value
    v = torch.arange(tiny.PARAMETERS, dtype=torch.float32)
    assert torch.equal(HessianOperator(found).matvec(v), HessianOperator(expected).matvec(v))


def message(spec: Path, checkpoint: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        tiny.load(spec, f"model.checkpoint={checkpoint}")
    assert str(caught.value).startswith(f"{checkpoint}: ")
    return str(caught.value)


def save_state(folder: Path, *models: nn.Module, **options: object) -> Path:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'hessdiag[hf]'")
    accelerator = accelerate.Accelerator(cpu=True)
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters())
        accelerator.prepare(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
    accelerator.save_state(str(folder), **options)
    return folder


@pytest.mark.parametrize("safe", [True, False])
def test_accelerates_state(tmp_path, safe):
    spec = tiny.write(tmp_path)
    save_state(tmp_path / "state", tiny.network(), safe_serialization=safe)
    weights = "model.safetensors" if safe else "pytorch_model.bin"
    others = {"optimizer.bin", "scheduler.bin", "random_states_0.pkl"}
    assert {weights} | others <= {entry.name for entry in (tmp_path / "state").iterdir()}
    problem = tiny.load(spec, "model.checkpoint=state")
    assert_same(problem)
    assert problem.checkpoint.format == "accelerate"
    besides = identify(tmp_path / "state").read(tmp_path / "state", Reading()).besides
    assert besides.keys() == {entry.name for entry in (tmp_path / "state").iterdir()} - {weights}
    assert all(words.endswith("bytes, not read") for words in besides.values())


def test_nothing_beside_the_weights_runs(tmp_path):
    spec = tiny.write(tmp_path)
    save_state(tmp_path / "state", tiny.network())
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "custom_checkpoint_0.pkl"):
        write_evil(tmp_path / "state" / name, tmp_path / "RAN")
    assert_same(tiny.load(spec, "model.checkpoint=state"))
    (tmp_path / "state/model.safetensors").unlink()
    assert "it holds no weights" in message(spec, "state")
    write_evil(tmp_path / "state/pytorch_model.bin", tmp_path / "RAN")
    assert "refused" in message(spec, "state")
    assert not (tmp_path / "RAN").exists()


def test_the_attack_is_one(tmp_path):
    write_evil(tmp_path / "random_states_0.pkl", tmp_path / "RAN")
    pickle.loads((tmp_path / "random_states_0.pkl").read_bytes())
    assert (tmp_path / "RAN").exists()
    assert Evil(tmp_path / "RAN2").__reduce__()[1] == (str(tmp_path / "RAN2"),)


def test_a_state_of_several_models(tmp_path):
    spec = tiny.write(tmp_path)
    save_state(tmp_path / "state", tiny.network(), nn.Linear(2, 2))
    said = message(spec, "state")
    assert "it holds 2 models (model.safetensors, model_1.safetensors), expected one: name its file" in said
    assert_same(tiny.load(spec, "model.checkpoint=state/model.safetensors"))


def run_folder(folder: Path) -> Path:
    """As ``hessdiag nso train`` leaves it."""
    tiny.write(folder)
    shutil.move(folder / "audit.yaml", folder / "spec.yaml")
    shutil.move(folder / "weights.safetensors", folder / "last.safetensors")
    save_file({name: item + 1 for name, item in tiny.weights().items()}, folder / "best.safetensors")
    (folder / "history.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    return folder


def test_a_run_as_checkpoint_means_its_last_weights(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    run_folder(run)
    problem = tiny.load(tiny.write(tmp_path), "model.checkpoint=run")
    assert_same(problem)
    assert problem.checkpoint.format == "safetensors"
    assert identify(run).read(run, Reading()).besides.keys() == {
        "best.safetensors",
        "data.npz",
        "history.jsonl",
        "model.py",
        "spec.yaml",
    }


def test_a_run_as_target(tmp_path):
    from hessdiag.loading import load

    (tmp_path / "run").mkdir()
    assert_same(load(run_folder(tmp_path / "run")))


@pytest.mark.parametrize("kept", [0, 3, 100, -4])
def test_a_run_whose_weights_are_cut_short(tmp_path, kept):
    (tmp_path / "run").mkdir()
    last = run_folder(tmp_path / "run") / "last.safetensors"
    last.write_bytes(last.read_bytes()[:kept])
    assert message(tiny.write(tmp_path), "run").startswith("run: last.safetensors: ")
