"""Checkpoints: what loads, what is damaged, what is refused, and that nothing in them runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints import Reading, load_into


def read(path: Path, model: nn.Module | None = None) -> nn.Module:
    model = model or tiny.network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_into(model, path, path.name, Reading())
    return model


def message(path: Path, model: nn.Module | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path, model)
    assert caught.value.exit_code == 3
    assert path.name in str(caught.value)
    return str(caught.value)


SAVERS = {
    "safetensors": lambda tensors, path: save_file(tensors, path),
    "zip": lambda tensors, path: torch.save(tensors, path),
    "legacy": lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", SAVERS)
def test_weights_arrive_bit_for_bit(tmp_path, form):
    path = tmp_path / "weights.any"  # the content tells the format, not the name
    SAVERS[form](tiny.weights(), path)
    found = read(path).state_dict()
    assert all(torch.equal(found[name], item) for name, item in tiny.weights().items())
    _, info = load_into(tiny.network(), path, "shown", Reading())
    assert (info.path, info.format) == ("shown", "safetensors" if form == "safetensors" else "state_dict")
    assert len(info.sha256) == 64


@pytest.mark.parametrize("form", SAVERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_the_models(tmp_path, form, dtype):
    SAVERS[form]({name: item.to(dtype) for name, item in tiny.weights().items()}, tmp_path / "w")
    model = read(tmp_path / "w")
    assert model[0].weight.dtype is torch.float32
    assert torch.equal(model[0].weight, tiny.weights()["0.weight"].to(dtype).float())


@pytest.mark.parametrize("form", SAVERS)
@pytest.mark.parametrize("kept", [1, 4, 8, 9, 12, 50, 200, 0.5, 0.9, -20, -1])
def test_cut_short(tmp_path, form, kept):
    path = tmp_path / "cut"
    SAVERS[form](tiny.weights(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    words = message(path)
    assert any(said in words for said in ("damaged", "found neither safetensors nor", "found a text file"))


def test_one_bit_flipped_in_a_record(tmp_path):
    path = tmp_path / "flipped.pt"
    torch.save(tiny.weights(), path)
    content = bytearray(path.read_bytes())
    place = content.index(tiny.weights()["0.weight"].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert "1 of its" in message(path)
    assert "checksums" in message(path)


def test_a_file_saved_without_checksums_loads(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tiny.weights(), tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        assert archive.testzip() is not None  # else this shows nothing
    assert torch.equal(read(tmp_path / "w.pt")[0].weight, tiny.weights()["0.weight"])


OTHER_FILES = {
    "empty": (b"", "0 bytes"),
    "random": (np.random.default_rng(0).bytes(1000), "found neither"),
    "zeros": (bytes(1000), "found neither"),
    "text": (b"not a checkpoint", "found a text file"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "run git lfs pull"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files(tmp_path, name):
    content, words = OTHER_FILES[name]
    (tmp_path / "other").write_bytes(content)
    assert words in message(tmp_path / "other")


def test_a_folder(tmp_path):
    (tmp_path / "x.pt").mkdir()
    assert "found a folder that is no checkpoint (it holds nothing)" in message(tmp_path / "x.pt")


def test_other_archives(tmp_path):
    torch.save(tiny.weights(), tmp_path / "inner.pt")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.write(tmp_path / "inner.pt", "run/inner.pt")
    words = message(tmp_path / "packed.zip")
    assert "torch.save did not write (it holds run/inner.pt)" in words
    assert "unpack it, and name run/inner.pt" in words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(3)], "found a list, expected a state dict"),
        (torch.ones(3), "found a Tensor, expected a state dict"),
        ({}, "found an empty dict, expected a state dict"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors by name (it holds epoch, lr), expected a state dict"),
    ],
)
def test_other_contents(tmp_path, content, words):
    torch.save(content, tmp_path / "other.pt")
    assert words in message(tmp_path / "other.pt")


# -- nothing runs ------------------------------------------------------------------------------------------


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Evaluated(Evil):
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


def hidden(evil: Evil) -> object:
    return {**tiny.weights(), "meta": {"deep": [1, ({"er": evil},)]}}


ATTACKS = {
    "zip": lambda evil, path: torch.save(evil, path),
    "legacy": lambda evil, path: torch.save(evil, path, _use_new_zipfile_serialization=False),
    "zip, hidden": lambda evil, path: torch.save(hidden(evil), path),
    "legacy, hidden": lambda evil, path: torch.save(hidden(evil), path, _use_new_zipfile_serialization=False),
    **{
        f"bare pickle, protocol {protocol}": lambda evil, path, protocol=protocol: path.write_bytes(
            pickle.dumps(evil, protocol)
        )
        for protocol in range(6)
    },
}


@pytest.mark.parametrize("kind", [Evil, Evaluated])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_checkpoint_runs(tmp_path, attack, kind):
    marker, path = tmp_path / "RAN", tmp_path / "evil.pt"
    ATTACKS[attack](kind(marker), path)
    words = message(path)
    assert "refused" in words or "found neither" in words
    assert not marker.exists()


def test_the_attack_is_one(tmp_path):
    torch.save(Evil(tmp_path / "RAN"), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "RAN").exists()


def test_what_a_pickle_calls_is_named(tmp_path):
    torch.save(tiny.network(), tmp_path / "whole.pt")
    words = message(tmp_path / "whole.pt")
    assert "refused: a whole pickled torch.nn.modules.container.Sequential" in words
    assert "torch.save(model.state_dict()" in words


def test_torchscript_is_a_program(tmp_path):
    # What torch.jit.save writes, without its deprecated machinery.
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/model.py"):
            archive.writestr(f"script/{name}", b"")
    assert "refused: a TorchScript archive, which is a program" in message(tmp_path / "script.pt")


# -- the fit -----------------------------------------------------------------------------------------------


def renamed(old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new, 1): item for name, item in tiny.weights().items()}


MISFITS = {
    "shapes": (tiny.weights(7), ["3 tensors have another shape (first: 0.weight is (7, 4), the model expects (5, 4))"]),
    "one shape": ({**tiny.weights(), "2.bias": torch.zeros(4)}, ["1 tensor has another shape (first: 2.bias is (4,)"]),
    "shapes' cause": (tiny.weights(7), ["set model.init_args to the values that it was trained with"]),
    "lacking": ({"0.bias": torch.zeros(5)}, ["it lacks 3 of the model's 4 tensors (first: 0.weight (5, 4)"]),
    "nothing": (
        {"other": torch.zeros(1)},
        ["it lacks 4 of the model's 4 tensors", "0.bias (5,), 2.weight (3, 5), ..."],
    ),
    "extra": ({**tiny.weights(), "more": torch.zeros(2)}, ["it has 1 tensor that the model lacks (first: more (2,))"]),
    "other names": (renamed("0.", "first."), ["lacks 2 of", "has 2 tensors", "check that model.class_path"]),
    "whole numbers": (
        {name: item.long() for name, item in tiny.weights().items()},
        ["4 tensors are of another kind of number (first: 0.weight is int64, the model expects float32)"],
    ),
    "no data": ({name: item.to("meta") for name, item in tiny.weights().items()}, ["could not be copied"]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_told(tmp_path, name):
    tensors, words = MISFITS[name]
    torch.save(tensors, tmp_path / "w.pt")
    said = message(tmp_path / "w.pt")
    assert [word for word in words if word not in said] == [], said


def test_a_model_that_does_not_fit_is_left_alone(tmp_path):
    torch.save({**tiny.weights(), "2.bias": torch.zeros(4)}, tmp_path / "w.pt")
    model = tiny.network(5)
    before = {name: item.clone() for name, item in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_into(model, tmp_path / "w.pt", "w.pt", Reading())
    assert all(torch.equal(item, before[name]) for name, item in model.state_dict().items())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_tied_weights_need_one_of_their_names(tmp_path, kept):
    value = torch.arange(12.0).reshape(4, 3)
    save_file({kept: value}, tmp_path / "tied.safetensors")  # safetensors stores shared memory once
    model = read(tmp_path / "tied.safetensors", Tied())
    assert model.embed.weight is model.head.weight
    assert torch.equal(model.embed.weight, value)


def test_batch_norm_statistics_arrive_and_their_count_may_be_missing(tmp_path):
    tensors = nn.BatchNorm1d(2).state_dict() | {"running_var": torch.tensor([2.0, 3.0])}
    del tensors["num_batches_tracked"]
    torch.save(tensors, tmp_path / "bn.pt")
    assert torch.equal(read(tmp_path / "bn.pt", nn.BatchNorm1d(2)).running_var, torch.tensor([2.0, 3.0]))
    del tensors["running_mean"]
    torch.save(tensors, tmp_path / "bn.pt")
    assert "it lacks 1 of the model's 5 tensors (first: running_mean (2,))" in message(
        tmp_path / "bn.pt", nn.BatchNorm1d(2)
    )
