"""Checkpoints that are programs: refused without trust; with it, their weights, and their network where it can be."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
import tiny
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch_files import Calls, contents, holds, load, moved, payloads, refusal

import hessdiag
from hessdiag.errors import CheckpointError, UsageError
from hessdiag.loading.checkpoints import Reading, load_whole
from hessdiag.loading.checkpoints.pickles import unsafe_globals

ALONE = "Save the weights alone: torch.save(model.state_dict(), ...) or safetensors"
TRUST = f"{ALONE}; or, if you trust whoever made it, --trust-checkpoint"


class Net(nn.Module):
    """With what differs between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.last = (
            nn.Linear(4, 5),
            nn.BatchNorm1d(5),
            nn.Dropout(0.5),
            nn.Linear(5, 3),
        )

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def net() -> Net:
    torch.manual_seed(3)
    model = Net()
    model(torch.randn(20, 4))
    return model.eval()


def scripted(path: Path, model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of TorchScript
        torch.jit.save(torch.jit.script(model), path)


def traced(path: Path, model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(model, torch.randn(7, 4)), path)


def exported(path: Path, model: nn.Module) -> None:
    sizes = ({0: torch.export.Dim("batch", min=2, max=1000)},)
    torch.export.save(torch.export.export(model, (torch.randn(7, 4),), dynamic_shapes=sizes), path)


def pickled(path: Path, model: nn.Module) -> None:
    torch.save(model, path)


def wrapped(path: Path, model: nn.Module) -> None:
    torch.save({"epoch": 3, "model": model, "ema": None}, path)


SAVERS = {
    "torchscript, scripted": (scripted, "torchscript", "a TorchScript archive, which is a program"),
    "torchscript, traced": (traced, "torchscript", "a TorchScript archive, which is a program"),
    "exported": (exported, "exported", "a torch.export program, which is a program"),
    "pickled": (pickled, "pickled-module", f"a whole pickled {Net.__module__}.Net, and nothing in a checkpoint is run"),
    "pickled, wrapped": (wrapped, "pickled-module", f"its pickle calls {Net.__module__}.Net, "),
}
WHOLE = ("exported", "pickled", "pickled, wrapped")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    paths = {}
    for name, (save, _, _) in SAVERS.items():
        paths[name] = folder / f"{name.replace(', ', '_')}.pt"
        with torch.random.fork_rng():
            save(paths[name], net())
    return paths


@pytest.mark.parametrize("name", SAVERS)
def test_refused_without_trust(saved, name):
    said = refusal(saved[name], net())
    assert SAVERS[name][2] in said
    assert said.endswith(TRUST) or (name == "pickled, wrapped" and "allow them, --allow-global" in said)


@pytest.mark.parametrize("name", SAVERS)
def test_their_weights_go_into_the_spec_s_model(saved, name):
    model, info = load(saved[name], net(), trust=True)
    assert holds(model, net().state_dict())
    assert info.format == SAVERS[name][1]


@pytest.mark.parametrize("name", WHOLE)
def test_their_network_is_measured_itself(saved, name):
    model, info = load_whole(saved[name], "w.pt", Reading(trust=True))
    assert info.format == SAVERS[name][1]
    assert products(model).sub(products(net())).abs().max() < 1e-14


def products(model: nn.Module) -> torch.Tensor:
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(5)), torch.arange(30) % 3
    batches = [(x[:12].double(), y[:12]), (x[12:].double(), y[12:])]
    operator = hessdiag.HessianOperator(hessdiag.Problem(model.double(), "cross_entropy", batches))
    vectors = torch.randn(operator.shape[0], 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return operator.matmat(vectors)


def test_torchscript_is_not_measured_itself(saved):
    with pytest.raises(UsageError) as caught:
        load_whole(saved["torchscript, scripted"], "w.pt", Reading(trust=True))
    assert caught.value.key == "model.class_path"
    assert "(torchscript) gives its weights, but cannot be differentiated at other weights itself: name what" in str(
        caught.value
    )


def test_a_program_exported_in_training_mode_is_not_measured_itself(tmp_path):
    exported(tmp_path / "w.pt2", net().train())
    with pytest.raises(CheckpointError) as caught:
        load_whole(tmp_path / "w.pt2", "w.pt2", Reading(trust=True))
    assert str(caught.value) == (
        "w.pt2: a torch.export program in training mode (aten.batch_norm.default, aten.dropout.default), expected "
        "evaluation mode: call model.eval() before torch.export.export, or name what builds the network in "
        "model.class_path"
    )
    assert load(tmp_path / "w.pt2", Net(), trust=True)[1].format == "exported"


@pytest.mark.parametrize("name", ["torchscript, scripted", "exported"])
def test_a_program_has_no_moving_average(saved, name):
    assert "holds one set of weights, and no moving average: leave out --weights ema" in refusal(
        saved[name], net(), trust=True, weights="ema"
    )


@pytest.mark.parametrize("name", ["torchscript, scripted", "exported"])
def test_a_damaged_program(saved, tmp_path, name):
    with zipfile.ZipFile(saved[name]) as whole, zipfile.ZipFile(tmp_path / "w.pt", "w") as less:
        for entry in whole.namelist()[-4:]:
            less.writestr(entry, whole.read(entry))
        less.writestr("w/constants.pkl" if "script" in name else "w/archive_format", b"pt2")
    assert "that this torch" in refusal(tmp_path / "w.pt", net(), trust=True)


def test_a_payload_in_a_program_does_not_run(tmp_path):
    evil, _ = payloads(tmp_path / "RAN")["system"]
    torch.save(evil, tmp_path / "evil.pt")
    with zipfile.ZipFile(tmp_path / "evil.pt") as archive:
        content = archive.read("evil/data.pkl")
    for name in ("constants.pkl", "archive_format"):
        with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
            for record in ("data.pkl", name, "data/sample_inputs/model.pt"):
                archive.writestr(f"program/{record}", content)
        assert "which is a program" in refusal(tmp_path / "program.pt")
    assert "posix.system" in unsafe_globals(tmp_path / "evil.pt")
    assert not (tmp_path / "RAN").exists()


def test_with_trust_whatever_was_pickled_loads(tmp_path):
    torch.save({"model": tiny.weights(), "call": Calls(os.getpid)}, tmp_path / "w.pt")
    assert "posix.getpid" in refusal(tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt", trust=True)[0])
    with pytest.raises(UsageError, match="holds weights alone"):
        load_whole(tmp_path / "w.pt", "w.pt", Reading(trust=True))


def test_a_module_whose_code_is_gone(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text("from torch import nn\nclass Own(nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_models

    torch.save(own_models.Own(4, 3), tmp_path / "w.pt")
    assert load_whole(tmp_path / "w.pt", "w.pt", Reading(trust=True))[1].format == "pickled-module"
    monkeypatch.delitem(__import__("sys").modules, "own_models")
    (tmp_path / "own_models.py").unlink()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert (
        "could not be unpickled (ModuleNotFoundError: No module named 'own_models'): the code that it was saved with "
        "must be importable under the same names: put its folder on PYTHONPATH, or save the weights alone"
    ) in refusal(tmp_path / "w.pt", trust=True)


@pytest.fixture
def path_of_imports(monkeypatch):
    """As it is for the installed program: without the current folder."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    yield sys.path
    for name in [name for name in sys.modules if name.startswith("beside_")]:
        del sys.modules[name]


def pickled_beside(folder: Path, code: str, where: Path | None = None) -> Path:
    """A network whose class a file in ``where`` defines, saved into ``folder`` by another process."""
    where = where or folder
    for each in (folder, where):
        each.mkdir(exist_ok=True)
    (where / "beside_net.py").write_text(f"from torch import nn\nclass Net(nn.Linear):\n    {code}\n")
    command = f"import beside_net, torch; torch.save(beside_net.Net(4, 3), {str(folder / 'w.pt')!r})"
    subprocess.run([sys.executable, "-c", command], cwd=where, check=True, timeout=120)
    return folder / "w.pt"


@pytest.mark.parametrize("beside", ["checkpoint", "current folder"])
def test_trusted_code_is_found_beside_the_checkpoint_and_in_the_current_folder(
    tmp_path, monkeypatch, path_of_imports, beside
):
    where = tmp_path / ("there" if beside == "checkpoint" else "here")
    path = pickled_beside(tmp_path / "there", "sign = 1", where)
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    before = path_of_imports.copy()
    assert load_whole(path, "w.pt", Reading(trust=True))[0].sign == 1
    assert path_of_imports == before


def test_two_checkpoints_each_with_code_of_one_name(tmp_path, path_of_imports):
    for sign in (1, -1, 1):
        path = pickled_beside(tmp_path / f"of{sign}", f"sign = {sign}")
        assert load_whole(path, "w.pt", Reading(trust=True))[0].sign == sign


def test_what_only_the_script_that_saved_it_has(tmp_path, monkeypatch):
    """The class is in ``__main__`` while it is saved, and not when it is read."""
    lost = type("Lost", (nn.Linear,), {"__module__": "__main__"})
    with monkeypatch.context() as patch:
        patch.setattr("__main__.Lost", lost, raising=False)
        torch.save(lost(4, 3), tmp_path / "w.pt")
        assert refusal(tmp_path / "w.pt").endswith(TRUST)
        assert type(load_whole(tmp_path / "w.pt", "w.pt", Reading(trust=True))[0]) is lost
    why = (
        "the script that saved it defined Lost, so that only that script can save the weights again: "
        "torch.save(model.state_dict(), ...) or safetensors"
    )
    assert refusal(tmp_path / "w.pt") == (
        f"w.pt: refused: its pickle calls __main__.Lost, and nothing in a checkpoint is run. Besides, {why}"
    )
    assert refusal(tmp_path / "w.pt", trust=True) == f"w.pt: could not be unpickled: {why}"


# -- pickles that torch.save did not write -----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_bare_pickle_of_tensors_is_read_with_trust(tmp_path, protocol):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"state_dict": tiny.weights()}, protocol))
    assert refusal(tmp_path / "w.pkl").endswith(
        f"torch.storage._load_from_bytes, and nothing in a checkpoint is run. {TRUST}"
    )
    model, info = load(tmp_path / "w.pkl", trust=True)
    assert holds(model)
    assert info.format == "state_dict"


def test_a_bare_pickle_of_a_network_is_read_with_trust(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(tiny.network()))
    said = refusal(tmp_path / "w.pkl")
    assert "refused: a whole pickled torch.nn.modules.container.Sequential" in said
    assert said.endswith(TRUST)
    model, info = load_whole(tmp_path / "w.pkl", "w.pkl", Reading(trust=True))
    assert holds(model)
    assert info.format == "pickled-module"


def test_a_bare_pickle_of_tensors_and_a_payload_is_not_to_be_trusted(tmp_path):
    evil, name = payloads(tmp_path / "RAN")["system"]
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({**tiny.weights(), "evil": evil}))
    said = refusal(tmp_path / "w.pkl")
    assert f"{name}, and nothing in a checkpoint is run. No weights need that: do not trust this file" in said
    assert "--trust-checkpoint" not in said
    assert not (tmp_path / "RAN").exists()


# -- torch.distributed.checkpoint --------------------------------------------------------------------------


def shards(folder: Path, content: dict) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, that no process group is there
        dcp.save(content, checkpoint_id=folder, no_dist=True)
    return folder


W = tiny.weights()
SHARDED = {
    "bare": W,
    "FSDP and Accelerate": {"model": W},
    "with an optimizer": {
        "model": W,
        "optim": {"state": {"0": torch.ones(3)}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    },
    "an application's state": {"app": {"model": W, "optim": {"param_groups": [{"lr": 0.1}]}}},
    "state_dict": {"state_dict": {f"module.{name}": item for name, item in W.items()}},
}


@pytest.mark.parametrize("name", SHARDED)
def test_shards_are_put_together(tmp_path, name, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    model, info = load(shards(tmp_path / "step_3", SHARDED[name]), trust=True)
    assert holds(model)
    assert info.format == "distributed"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_accelerate_folder_with_shards(tmp_path):
    shards(tmp_path / "state" / "pytorch_model_fsdp_0", {"model": W})
    torch.save({}, tmp_path / "state" / "random_states_0.pkl")
    assert holds(load(tmp_path / "state", trust=True)[0])
    before = load(tmp_path / "state", trust=True)[1].sha256
    shards(tmp_path / "state" / "pytorch_model_fsdp_0", {"model": moved(W)})
    assert load(tmp_path / "state", trust=True)[1].sha256 != before


def test_shards_are_refused_without_trust(tmp_path):
    assert refusal(shards(tmp_path / "step_3", W)) == (
        "step_3: refused: a torch.distributed.checkpoint folder, whose .metadata is a raw pickle that can run "
        f"anything, and nothing in a checkpoint is run. {TRUST}"
    )


def test_shards_with_a_payload_are_not_to_be_trusted(tmp_path):
    folder = shards(tmp_path / "step_3", W)
    (folder / ".metadata").write_bytes(pickle.dumps(payloads(tmp_path / "RAN")["system"][0]))
    assert refusal(folder) == (
        "step_3: refused: a torch.distributed.checkpoint folder, whose .metadata is a raw pickle, calls posix.system, "
        "and nothing in a checkpoint is run. No weights need that: do not trust this folder unless you know who made "
        f"it. {ALONE}"
    )
    assert not (tmp_path / "RAN").exists()


def test_damaged_shards(tmp_path, caplog, capfd):
    folder = shards(tmp_path / "step_3", W)
    shard = next(folder.glob("*.distcp"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    caplog.clear()  # of what torch tells while it saves
    assert "folder: .metadata or a shard is missing, cut short or overwritten: copy" in refusal(folder, trust=True)
    assert not caplog.records
    assert capfd.readouterr().err == ""
    shard.unlink()
    assert "folder: .metadata or a shard is missing" in refusal(folder, trust=True)
    (folder / ".metadata").write_bytes(b"\x80\x04")
    assert "damaged torch.distributed.checkpoint folder" in refusal(folder, trust=True)


def test_a_moving_average_among_shards(tmp_path):
    folder = shards(tmp_path / "step_3", {"model": W, "ema": moved(W)})
    assert contents(folder, trust=True, weights="ema").besides == {"model": "dict of 4"}
    assert holds(load(folder, trust=True, weights="ema")[0], moved(W))
