"""One network saved in many formats gives one report, apart from the block on the checkpoint."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint as distributed

OPTIMIZER = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1, 2, 3]}]}
TRUST = ("--trust-checkpoint",)


def state_dict(path: Path) -> None:
    torch.save(tiny.weights(), path / "model.pt")


def legacy(path: Path) -> None:
    torch.save(OrderedDict(tiny.weights()), path / "model.pth", _use_new_zipfile_serialization=False)


def wrapped(path: Path) -> None:
    prefixed = {f"module.{name}": tensor for name, tensor in tiny.weights().items()}
    torch.save({"epoch": 3, "model_state_dict": prefixed, "optimizer": OPTIMIZER}, path / "model.tar")


def average(path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in tiny.weights().items()}
    torch.save({"state_dict": other, "state_dict_ema": tiny.weights()}, path / "model.pth.tar")


def lightning(path: Path) -> None:
    content = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in tiny.weights().items()},
        "loops": {},
        "callbacks": {"ModelCheckpoint": {"best_model_path": "x.ckpt"}},
        "optimizer_states": [OPTIMIZER],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(content, path / "model.ckpt")


def one_safetensors(path: Path) -> None:
    save_file(tiny.weights(), path / "model.safetensors")


def sharded(path: Path) -> None:
    tensors = tiny.weights()
    names = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in tensors if names[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def accelerated(path: Path) -> None:
    save_file(tiny.weights(), path / "model.safetensors")
    torch.save(OPTIMIZER, path / "optimizer.bin")
    torch.save({"step": 3, "random_state": torch.get_rng_state()}, path / "random_states_0.pkl")


def trained_run(path: Path) -> None:
    save_file(tiny.weights(), path / "last.safetensors")
    save_file({name: tensor + 1 for name, tensor in tiny.weights().items()}, path / "best.safetensors")
    (path / "spec.yaml").write_text("{}")


def distributed_folder(path: Path) -> None:
    distributed.save({"model": tiny.weights()}, checkpoint_id=path, no_dist=True)


def pickled_module(path: Path) -> None:
    torch.save(tiny.network(), path / "model.pt")


def torchscript(path: Path) -> None:
    torch.jit.trace(tiny.network(), torch.zeros(2, 4)).save(path / "model.pt")


def exported(path: Path) -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(tiny.network(), (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path / "model.pt2")


FORMATS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "state_dict": (state_dict, ()),
    "legacy": (legacy, ()),
    "wrapped": (wrapped, ()),
    "average": (average, ("--weights", "ema")),
    "lightning": (lightning, ()),
    "safetensors": (one_safetensors, ()),
    "sharded": (sharded, ()),
    "accelerate": (accelerated, ()),
    "run": (trained_run, ()),
    "distributed": (distributed_folder, TRUST),
    "pickled module": (pickled_module, TRUST),
    "torchscript": (torchscript, TRUST),
    "exported": (exported, TRUST),
}


@pytest.fixture
def report(folder: Path, run: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def audit(*args: str) -> dict[str, Any]:
        result = run("audit", "audit.yaml", "--json", *args)
        assert result.exit_code == 0, result.stderr
        document = tiny.without_times(json.loads(result.stdout))
        assert document["status"] == "complete"
        return document

    return audit


@pytest.mark.filterwarnings("ignore")  # torch's own, on the formats that it calls old
@pytest.mark.parametrize("name", FORMATS)
def test_the_report_is_that_of_any_other_format(
    folder: Path, report: Callable[..., dict[str, Any]], run: Callable[..., Any], name: str
) -> None:
    write, options = FORMATS[name]
    path = folder / "saved"
    path.mkdir()
    write(path)
    files = sorted(path.iterdir())
    target = str(files[0] if len(files) == 1 else path)
    expected, found = report(), report("--checkpoint", target, *options)
    assert expected["target"].pop("checkpoint")["path"] == "weights.safetensors"
    block = found["target"].pop("checkpoint")
    assert block["path"] == target
    assert len(block["sha256"]) == 64
    assert block["format"]
    assert found == expected
    if options:
        refused = run("audit", "audit.yaml", "--checkpoint", target)
        assert (refused.exit_code, "--trust-checkpoint" in refused.stderr) == (
            (3, True) if options == TRUST else (0, False)
        )


@pytest.mark.parametrize("name", ["state_dict", "legacy", "lightning", "safetensors", "sharded", "accelerate", "run"])
def test_a_moving_average_that_is_not_there_is_refused(folder: Path, run: Callable[..., Any], name: str) -> None:
    path = folder / "saved"
    path.mkdir()
    FORMATS[name][0](path)
    files = sorted(path.iterdir())
    target = str(files[0] if len(files) == 1 else path)
    result = run("audit", "audit.yaml", "--checkpoint", target, "--weights", "ema")
    assert result.exit_code == 3
    assert "leave out --weights ema" in result.stderr


def test_what_is_left_out_is_in_the_report_and_on_the_screen(folder: Path, run: Callable[..., Any]) -> None:
    tensors = {f"net.{name}": tensor for name, tensor in tiny.weights().items()}
    torch.save({"state_dict": tensors | {"criterion.weight": torch.ones(3)}}, folder / "model.ckpt")
    args = ("eigs", "audit.yaml", "--checkpoint", "model.ckpt")
    assert "tensors beside the model's are left out: 1 (first: criterion.weight)" in run(*args).stdout
    report = run(*args, "--json")
    assert json.loads(report.stdout)["target"]["checkpoint"]["left_out"] == ["criterion.weight"]
    assert "warning: the checkpoint's tensors beside the model's are left out: 1" in report.stderr
