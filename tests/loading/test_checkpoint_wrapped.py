"""Weights in the dicts that training scripts save: which are found, which are refused, and what is told of the rest."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import tiny
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch_files import contents, holds, load, moved, prefixed, refusal

W = tiny.weights()
OTHER = moved(W)


def optimizer_state():
    model = tiny.network()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


WRAPPERS = {
    **{
        name: {name: W, "optimizer": optimizer_state(), "epoch": 3}
        for name in ("state_dict", "model", "model_state_dict", "module", "net", "network", "weights", "params")
    },
    "nested": {"model": {"state_dict": W, "name": "mlp"}, "epoch": 3},
    "deeper": {"app": {"model": {"module": W}, "optim": optimizer_state()}},
    "ordered": {"state_dict": OrderedDict(W)},
    "parameters": {"model": {name: nn.Parameter(item) for name, item in W.items()}},
    "own name": {"resnet": W, "optimizer": optimizer_state(), "epoch": 3, "rng_state": torch.get_rng_state()},
    "one object twice": {"model": W, "state_dict": W},
    "a name and weights": {"model": "resnet50", "state_dict": W},
    "among numbers": {**W, "epoch": 3},
    "beside an average": {"model": W, "model_ema": OTHER},
    "DeepSpeed": {"module": W, "ds_config": {"zero": 1}, "mp_world_size": 1},
    "the average in its place": {"state_dict": OTHER, "current_model_state": W, "averaging_state": {"n_averaged": 2}},
    "an average among them": {**prefixed("net.", W), **prefixed("ema_net.module.", OTHER)},
    "AveragedModel": AveragedModel(tiny.network()).state_dict(),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_weights_inside_are_found(tmp_path, name, legacy):
    torch.save(WRAPPERS[name], tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    model, info = load(tmp_path / "w.pt")
    assert holds(model)
    assert info.format == "state_dict"


AVERAGES = {
    **{
        name: {"model": W, name: OTHER}
        for name in ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema", "swa_model")
    },
    "nested": {"model": W, "ema": {"module": OTHER, "decay": 0.99}},
    "in a callback": {"state_dict": W, "callbacks": {"EMA": {"state_dict_ema": OTHER}}},
    "AveragedModel": {"model": W, "swa_model": {"n_averaged": torch.tensor(7), **prefixed("module.", OTHER)}},
    "AveragedModel alone": {"n_averaged": torch.tensor(7), **prefixed("module.", OTHER)},
    "in its place": {"state_dict": OTHER, "current_model_state": W, "averaging_state": {"n_averaged": 2}},
    "among the weights": {"state_dict": {**prefixed("net.", W), **prefixed("ema_net.module.", OTHER)}},
    "nothing else": {"ema": OTHER},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_the_moving_average_where_it_is_asked_for(tmp_path, name):
    torch.save(AVERAGES[name], tmp_path / "w.pt")
    model, _ = load(tmp_path / "w.pt", weights="ema")
    assert holds(model, OTHER)


def test_what_else_is_inside(tmp_path):
    averaged = {"n_averaged": torch.tensor(7), **prefixed("module.")}
    content = {
        "model": averaged,
        "optimizer": optimizer_state(),
        "epoch": 3,
        "lr": 0.5,
        "name": "mlp",
        "t": torch.ones(2),
    }
    torch.save(content, tmp_path / "w.pt")
    found = contents(tmp_path / "w.pt")
    assert set(found.tensors) == set(prefixed("module."))
    assert found.besides == {
        "optimizer": "dict of 2",
        "epoch": "3",
        "lr": "0.5",
        "name": "'mlp'",
        "t": "tensor (2,)",
        "n_averaged": "7",
    }
    torch.save({"app": {"model": W, "step": 3}, "run": [1, 2]}, tmp_path / "w.pt")
    assert contents(tmp_path / "w.pt").besides == {"run": "list of 2", "app.step": "3"}


def test_names_that_a_terminal_would_obey_are_shown_harmless(tmp_path):
    torch.save({"model": W, "\x1b[2Jgone": 1, "x" * 500: "\x07"}, tmp_path / "w.pt")
    assert contents(tmp_path / "w.pt").besides == {"\\x1b[2Jgone": "1", "x" * 197 + "...": "'\\x07'"}


NOT_FOUND = {
    "two of equal right": (
        {"model": W, "state_dict": OTHER},
        {},
        "holds 2 sets of weights of which none stands out: state_dict (4 tensors), model (4 tensors). "
        "Save the one that you mean alone",
    ),
    "a GAN": (
        {"netG": W, "netD": OTHER},
        {},
        "holds 2 sets of weights of which none stands out: netG (4 tensors), netD (4 tensors)",
    ),
    "an optimizer": (
        optimizer_state(),
        {},
        "holds the state of an optimizer and no weights (it holds state, param_groups): name the checkpoint that has",
    ),
    "an optimizer, wrapped": (
        {"optimizer": optimizer_state(), "epoch": 3},
        {},
        "holds the state of an optimizer and no weights (it holds optimizer, epoch)",
    ),
    "no average": (
        {"model": W, "optimizer": optimizer_state()},
        {"weights": "ema"},
        "holds no weights of a moving average (it holds model, optimizer): leave out --weights ema",
    ),
    "nothing but an average": (
        {"ema": W, "epoch": 3},
        {},
        "holds no weights but those of a moving average (it holds ema, epoch): --weights ema (model.weights: ema)",
    ),
    "two averages": (
        {"model": W, "ema": W | OTHER, "swa": OTHER},
        {"weights": "ema"},
        "holds 2 sets of weights of which none stands out: ema (4 tensors), swa (4 tensors)",
    ),
    "two averages among the weights": (
        {**prefixed("ema."), **prefixed("swa.")},
        {"weights": "ema"},
        "holds several moving averages (ema, swa): save the one that you mean alone",
    ),
    "no weights": ({"state_dict": {}, "epoch": 3}, {}, "holds no tensors by name (it holds state_dict, epoch)"),
    "numbers as names": ({0: torch.ones(2)}, {}, "holds no tensors by name (it holds 0)"),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_not_found_is_told(tmp_path, name):
    content, reading, words = NOT_FOUND[name]
    torch.save(content, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", **reading)
    assert words in said, said


def test_a_dict_that_leads_to_itself_ends(tmp_path):
    content: dict = {"epoch": 3}
    content["model"] = content["state_dict"] = content
    torch.save(content, tmp_path / "w.pt")
    assert "holds no tensors by name" in refusal(tmp_path / "w.pt")
    wide = {"leaf": 1}
    for _ in range(4):
        wide = {f"k{i}": wide for i in range(300)}
    torch.save({"model": wide}, tmp_path / "w.pt")
    assert "holds no tensors by name" in refusal(tmp_path / "w.pt")
    assert "no weights of a moving average" in refusal(tmp_path / "w.pt", weights="ema")
