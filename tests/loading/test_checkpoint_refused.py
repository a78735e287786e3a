"""Pickles that call things: refused by name, allowed by name, and nothing runs on the way to either."""

from __future__ import annotations

import argparse
import datetime
import enum
import pathlib
import pickle
import re
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy
import pytest
import tiny
import torch
from torch import nn
from torch_files import Calls, contents, emptied, holds, load, payloads, refusal
from typer.testing import CliRunner

from hessdiag.cli.app import app
from hessdiag.errors import UsageError
from hessdiag.loading.checkpoints import Reading, load_into
from hessdiag.loading.checkpoints.pickles import unsafe_globals

W = tiny.weights()
ALONE = "Save the weights alone: torch.save(model.state_dict(), ...) or safetensors"


def lightning(**more):
    """What Lightning's Trainer writes."""
    return {
        "epoch": 1,
        "global_step": 20,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"net.{name}": item for name, item in W.items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        **more,
    }


PLACES = {
    "the whole file": lambda evil: evil,
    "wrapped": lambda evil: {"state_dict": W, "meta": {"deep": [1, (evil,)]}},
    "among the weights": lambda evil: {**W, "extra": evil},
    "Lightning, parameters": lambda evil: lightning(hyper_parameters={"a": evil}),
    "Lightning, weights": lambda evil: lightning(state_dict={**W, "a": evil}),
    "Lightning, callbacks": lambda evil: lightning(callbacks={"a": evil}),
}


@pytest.mark.parametrize("kind", ["system", "open", "eval", "touch"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_payload_is_named_and_does_not_run(tmp_path, place, legacy, kind):
    marker, path = tmp_path / "RAN", tmp_path / "evil.pt"
    evil, name = payloads(marker)[kind]
    torch.save(PLACES[place](evil), path, _use_new_zipfile_serialization=not legacy)
    said = refusal(path)
    assert "refused: " in said
    assert name in said
    assert "No weights need that: do not trust this file unless you know who made it" in said
    assert "--allow-global" not in said
    assert name in unsafe_globals(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["system", "open", "eval", "touch"])
def test_the_payloads_are_such(tmp_path, kind):
    torch.save(payloads(tmp_path / "RAN")[kind][0], tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "RAN").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_looked_at_too(tmp_path, protocol):
    path = tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(payloads(tmp_path / "RAN")["system"][0], protocol))
    assert "its pickle calls posix.system" in refusal(path)
    assert unsafe_globals(path) == ["posix.system"]
    assert "found a pickle that torch.save did not write" in refusal(path, trust=True)
    path.write_bytes(pickle.dumps({"a": [1, 2.0, None, b"", {3}, frozenset("a")]}, protocol))
    assert "refused" in refusal(path) or "found a pickle that torch.save did not write" in refusal(path)
    assert not (tmp_path / "RAN").exists()


def test_a_bare_pickle_of_arrays_is_told_no_way_that_leads_nowhere(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {name: item.numpy() for name, item in W.items()}}, 2))
    told = refusal(tmp_path / "w.pkl")
    assert "found a pickle that torch.save did not write" in told
    assert "numpy.ndarray" in told
    assert "--allow-global" not in told


def test_a_payload_on_the_command_line(tmp_path, monkeypatch):
    spec = tiny.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save(payloads(tmp_path / "RAN")["system"][0], tmp_path / "evil.pt")
    result = CliRunner().invoke(app, ["audit", str(spec), "--checkpoint", "evil.pt", "--quiet"])
    assert result.exit_code == 3
    assert "posix.system" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "RAN").exists()


# -- what may be allowed -----------------------------------------------------------------------------------


class Settings:
    """What a training script keeps beside its weights."""

    def __init__(self) -> None:
        self.lr = 0.1


def test_all_refused_globals_are_named_at_once_with_the_way_on(tmp_path):
    torch.save({"model": W, "args": argparse.Namespace(lr=1), "more": Settings()}, tmp_path / "w.pt")
    own = f"{Settings.__module__}.Settings"
    assert refusal(tmp_path / "w.pt") == (
        f"w.pt: refused: its pickle calls argparse.Namespace, {own}, and nothing in a checkpoint is run. {ALONE}; or, "
        f"if you trust whoever made it, allow them, --allow-global argparse.Namespace --allow-global {own}"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_global_that_is_allowed_loads(tmp_path, legacy):
    content = {"model": W, "args": argparse.Namespace(lr=1), "path": pathlib.PurePosixPath("a/b")}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    said = refusal(tmp_path / "w.pt", allowed_globals=("argparse.Namespace",))
    assert "its pickle calls pathlib.PurePosixPath, and nothing" in said
    assert "allow it, --allow-global pathlib.PurePosixPath" in said
    names = ("argparse.Namespace", "pathlib.PurePosixPath")
    assert holds(load(tmp_path / "w.pt", allowed_globals=names)[0])
    assert contents(tmp_path / "w.pt", allowed_globals=names).besides == {"args": "Namespace", "path": "PurePosixPath"}
    assert "argparse.Namespace" in refusal(tmp_path / "w.pt")  # once allowed is not allowed for good


COMMON = {
    "a NumPy number": numpy.float64(0.5),
    "NumPy's numbers": [numpy.float32(1), numpy.int64(2), numpy.bool_(True)],
    "an array": numpy.arange(3),
    "a defaultdict": defaultdict(list, {"a": [1]}),
    "an empty defaultdict": defaultdict(int),
    "a class": int,
    "a time": datetime.datetime(2020, 1, 2),
    "a range": range(3),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", COMMON)
def test_the_advice_leads_to_the_weights(tmp_path, name, legacy):
    """What training scripts often keep beside the weights, each refused at first."""
    content = {"model": W, "beside": COMMON[name]}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    names = re.findall(r"--allow-global (\S+)", refusal(tmp_path / "w.pt"))
    assert names
    assert holds(load(tmp_path / "w.pt", allowed_globals=tuple(names))[0])


def test_what_a_library_lets_all_pickles_call_stays_apart(tmp_path):
    torch.save({"model": W, "beside": defaultdict(list, {"a": [1]})}, tmp_path / "w.pt")
    names = ("collections.defaultdict", "builtins.list")
    with torch.serialization.safe_globals([defaultdict, list]):
        assert "collections.defaultdict" in refusal(tmp_path / "w.pt")
        assert holds(load(tmp_path / "w.pt", allowed_globals=names)[0])
        assert set(torch.serialization.get_safe_globals()) >= {defaultdict, list}


def test_weights_in_a_kind_of_dict_that_is_allowed(tmp_path):
    torch.save({"model": defaultdict(dict, W)}, tmp_path / "w.pt")
    names = re.findall(r"--allow-global (\S+)", refusal(tmp_path / "w.pt"))
    assert holds(load(tmp_path / "w.pt", allowed_globals=tuple(names))[0])


def test_a_tensor_of_a_lazy_layer(tmp_path):
    torch.save({**W, "0.weight": nn.parameter.UninitializedParameter()}, tmp_path / "w.pt")
    told = refusal(tmp_path / "w.pt", allowed_globals=("torch.nn.parameter.UninitializedParameter",))
    assert "holds 1 tensor without a shape (first: 0.weight), of lazy layers" in told


def test_allowing_on_the_command_line(tmp_path, monkeypatch):
    spec = tiny.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save({"model": W, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pt")
    arguments = ["eigs", str(spec), "--checkpoint", "w.pt", "--quiet"]
    assert CliRunner().invoke(app, arguments).exit_code == 3
    assert CliRunner().invoke(app, [*arguments, "--allow-global", "argparse.Namespace"]).exit_code == 0
    wrong = CliRunner().invoke(app, [*arguments, "--allow-global", "argparse.Name"])
    assert wrong.exit_code == 2
    assert "--allow-global argparse.Name: argparse has no Name" in wrong.stderr


NOT_ALLOWED = {
    "Namespace": 'expected a dotted name as the refusal gives it, "package.module.Name"',
    "a b.c": "expected a dotted name as the refusal gives it",
    "no_such_package.Thing": "cannot be imported, no module no_such_package: install the package that has it",
    "argparse.Other": "argparse has no Other",
    "argparse.Namespace.other": "argparse.Namespace has no other",
    "posix.system": "torch lets no checkpoint call anything of the module posix",
    "__main__.Config": "cannot be imported, because the script that saved the checkpoint defined it. Save the weights "
    "alone with that script",
    "broken_module.Thing": "broken_module cannot be imported (ValueError: no)",
}


@pytest.mark.parametrize("name", NOT_ALLOWED)
def test_what_cannot_be_allowed(tmp_path, monkeypatch, name):
    (tmp_path / "broken_module.py").write_text("raise ValueError('no')")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(W, tmp_path / "w.pt")
    with pytest.raises(UsageError) as caught:
        load_into(emptied(), tmp_path / "w.pt", "w.pt", Reading(allowed_globals=(name,)))
    assert str(caught.value).startswith(f"--allow-global {name}: {NOT_ALLOWED[name]}")
    assert caught.value.exit_code == 2


def test_a_class_inside_a_class_can_be_allowed(tmp_path):
    torch.save(W, tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt", allowed_globals=("argparse.ArgumentParser.error",))[0])


def test_a_script_s_own_class_cannot_be_imported_and_so_is_not_offered(tmp_path, monkeypatch):
    monkeypatch.setattr(Settings, "__module__", "__main__")
    monkeypatch.setattr("__main__.Settings", Settings, raising=False)
    torch.save({"model": W, "more": Settings()}, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt").endswith(f"{ALONE}; or, if you trust whoever made it, --trust-checkpoint")


def test_another_protocol_is_told(tmp_path):
    torch.save(W, tmp_path / "w.pt", pickle_protocol=4)
    said = refusal(tmp_path / "w.pt")
    assert "refused: its pickle (protocol 4) has what weights_only does not read (FRAME, MEMOIZE, " in said
    assert f"expected protocol 2, as torch.save writes it. {ALONE}; or, if you trust whoever made it, --trust" in said
    assert holds(load(tmp_path / "w.pt", trust=True)[0])


# -- Lightning ---------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class AttributeDict(dict):
    """As Lightning keeps hyperparameters."""


class Many(list):
    pass


def ordinary():
    """What hyperparameters and callbacks of real files hold."""
    return {
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(
            args=argparse.Namespace(lr=0.1),
            path=Path("data"),
            colour=Colour.RED,
            own=Settings(),
            many=Many([1, 2]),
            counts=defaultdict(list, a=[1]),
            optimizer=torch.optim.SGD,
            reduction=len,
        ),
        "callbacks": {"checkpoint": {"best": Path("best.ckpt"), "score": torch.ones(())}},
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_lightning_s_hyperparameters_are_not_made(tmp_path, legacy, monkeypatch):
    torch.save(lightning(**ordinary()), tmp_path / "w.ckpt", _use_new_zipfile_serialization=not legacy)
    made, before = [], set(torch.serialization.get_safe_globals())
    monkeypatch.setattr(Settings, "__setstate__", lambda self, state: made.append(state), raising=False)
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda self, **state: made.append(state))
    model, info = load(tmp_path / "w.ckpt")
    assert holds(model)
    assert info.format == "lightning"
    assert made == []
    besides = contents(tmp_path / "w.ckpt").besides
    assert besides["hyper_parameters"] == "dict of 8"
    assert besides["epoch"] == "1"
    assert set(torch.serialization.get_safe_globals()) == before
    assert {"pathlib.PosixPath", "argparse.Namespace"} <= set(unsafe_globals(tmp_path / "w.ckpt"))


def test_a_name_that_no_class_may_have(tmp_path):
    torch.save(lightning(hyper_parameters={"a": argparse.Namespace()}), tmp_path / "w.ckpt")
    with zipfile.ZipFile(tmp_path / "w.ckpt") as whole, zipfile.ZipFile(tmp_path / "odd.ckpt", "w") as odd:
        for name in whole.namelist():
            odd.writestr(name, whole.read(name).replace(b"argparse\nNamespace", b"arg\x1bparse\nName\x00space"))
    assert holds(load(tmp_path / "odd.ckpt")[0])
    assert unsafe_globals(tmp_path / "odd.ckpt") == ["arg\\x1bparse.Name\\x00space"]


def test_a_network_s_class_among_hyperparameters(tmp_path):
    content = lightning(hyper_parameters={"activation": torch.nn.ReLU})
    torch.save(content, tmp_path / "w.ckpt")
    assert holds(load(tmp_path / "w.ckpt")[0])
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=False)
    assert "its pickle (protocol 2) has what weights_only does not read (a class with its source)" in refusal(
        tmp_path / "w.ckpt"
    )


def test_a_lightning_file_with_plain_hyperparameters(tmp_path):
    torch.save(lightning(hyper_parameters={"lr": 0.1}), tmp_path / "w.ckpt")
    model, info = load(tmp_path / "w.ckpt")
    assert holds(model)
    assert info.format == "lightning"


def test_what_lies_among_a_lightning_file_s_weights_is_not_replaced(tmp_path):
    weights = {f"net.{name}": item for name, item in W.items()}
    torch.save(lightning(state_dict={**weights, "own": Settings()}, other=Settings()), tmp_path / "w.ckpt")
    assert f"its pickle calls {Settings.__module__}.Settings, and nothing in a checkpoint is run" in refusal(
        tmp_path / "w.ckpt"
    )
    tensor = torch.ones(2).as_subclass(Tagged)
    torch.save(lightning(state_dict={**weights, "own": tensor}), tmp_path / "w.ckpt")
    assert f"its pickle calls {Tagged.__module__}.Tagged" in refusal(tmp_path / "w.ckpt")


class Tagged(torch.Tensor):
    pass


def test_a_call_of_a_call_is_refused_too(tmp_path):
    torch.save({"model": W, "a": Calls(getattr, Settings, "mro")}, tmp_path / "w.pt")
    assert "builtins.getattr" in refusal(tmp_path / "w.pt")


# -- quantised ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_dynamically_quantised_network_s_state(tmp_path):
    packed = (torch.quantize_per_tensor(torch.ones(5, 4), 0.1, 0, torch.qint8), torch.ones(5))
    state = {"0.scale": torch.ones(()), "0.zero_point": torch.zeros((), dtype=torch.int64)}
    state |= {"0._packed_params.dtype": torch.qint8, "0._packed_params._packed_params": packed}
    torch.save(state, tmp_path / "w.pt")
    assert "refused: the weights are quantised (by torch: 1 tensor such as 0._packed_params._packed_params)" in refusal(
        tmp_path / "w.pt"
    )
