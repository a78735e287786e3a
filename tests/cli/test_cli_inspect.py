"""`hessdiag inspect`: what a checkpoint holds is told right, damage ends with 3, and nothing in it runs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn


def document(run, *args: str) -> dict:
    result = run("inspect", *args, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def by_name(found: dict) -> dict[str, dict]:
    return {tensor["name"]: tensor for tensor in found["tensors"]}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_tells_what_is_there(folder, run, name):
    path = folder / name
    (save_file if name.endswith("s") else torch.save)(tiny.weights(), path)
    found = document(run, name)
    assert found["schema"] == "hessdiag/inspect@1"
    assert found["loads"] is True
    assert found["refusal"] is None
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["bytes"] == path.stat().st_size
    assert {n: (t["shape"], t["dtype"], t["finite"]) for n, t in by_name(found).items()} == {
        n: (list(t.shape), "float32", True) for n, t in tiny.weights().items()
    }
    assert (found["totals"]["tensors"], found["totals"]["parameters"]) == (4, tiny.PARAMETERS)
    assert found["totals"]["bytes"] == 4 * tiny.PARAMETERS


def test_values_that_are_not_finite_are_counted_in_every_kind_of_tensor(folder, run):
    values = torch.zeros(3000, 2000)  # more than are looked at together
    values[0, 0] = values[2999, 1999] = float("nan")
    values[5, :7] = float("-inf")
    odd = {
        "plain": values,
        "turned": values.t(),
        "half": values[:10].bfloat16(),
        "eighth": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn),
        "complex": torch.tensor([1 + 0j, complex("nan")]),
        "repeated": torch.tensor([float("inf")]).expand(10**6, 10**6),
        "sparse": torch.tensor([[0.0, float("nan")], [1.0, 0.0]]).to_sparse(),
        "whole": torch.arange(4),
        "nowhere": torch.empty(3, device="meta"),
        "none": torch.zeros(0, 3),
    }
    torch.save(odd, folder / "odd.pt")
    found = by_name(document(run, "odd.pt"))
    assert {name: (tensor["nan"], tensor["inf"]) for name, tensor in found.items()} == {
        "plain": (2, 7),
        "turned": (2, 7),
        "half": (1, 7),
        "eighth": (1, 0),
        "complex": (1, 0),
        "repeated": (0, 10**12),
        "sparse": (1, 0),
        "whole": (0, 0),
        "nowhere": (None, None),
        "none": (0, 0),
    }
    assert found["nowhere"]["finite"] is None
    assert "No Hessian can be measured" in run("inspect", "odd.pt").stdout


def test_tied_weights_are_counted_once(folder, run):
    weight = torch.ones(4, 3)
    torch.save({"a": weight, "b": weight, "c": weight[:2]}, folder / "tied.pt")
    found = document(run, "tied.pt")
    assert by_name(found)["b"]["same_as"] == "a"
    assert by_name(found)["c"]["same_as"] is None
    assert found["totals"]["parameters"] == 12 + 6
    assert "counted once: b = a" in run("inspect", "tied.pt").stdout


class Payload:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("save", [torch.save, lambda item, path: path.write_bytes(pickle.dumps(item))])
def test_a_refused_global_is_named_and_not_run(folder, run, save):
    save({"state_dict": tiny.weights(), "hook": Payload()}, folder / "evil.pt")
    found = document(run, "evil.pt")
    assert found["loads"] is False
    assert found["tensors"] == []
    assert "posix.system" in found["refusal"]["globals"]
    assert "collections.OrderedDict" not in found["refusal"]["globals"]
    shown = run("inspect", "evil.pt").stdout
    assert "Would not be loaded" in shown
    assert "posix.system" in shown
    assert not (folder / "ran").exists()


def test_what_the_person_allows_is_read(folder, run):
    torch.save({"model": tiny.weights(), "counts": Counter(a=1)}, folder / "c.pt")
    assert document(run, "c.pt")["loads"] is True  # a Counter is on torch's own list
    torch.save({"model": tiny.weights(), "path": Path("x")}, folder / "p.pt")
    refused = document(run, "p.pt")
    assert refused["loads"] is False
    allowed = [f"--allow-global={name}" for name in refused["refusal"]["globals"]]
    found = document(run, "p.pt", *allowed)
    assert found["loads"] is True
    assert len(found["tensors"]) == 4


def test_which_weights(folder, run):
    ema = {name: item + 1 for name, item in tiny.weights().items()}
    ema["0.weight"][0, 0] = float("nan")
    torch.save({"state_dict": tiny.weights(), "state_dict_ema": ema, "epoch": 3}, folder / "two.pt")
    assert document(run, "two.pt")["totals"]["nan"] == 0
    assert document(run, "two.pt", "--weights", "ema")["totals"]["nan"] == 1
    assert document(run, "two.pt")["besides"]["epoch"] == "3"


def test_quantised_weights_are_listed_and_refused(folder, run):
    tensors = {"fc.weight": torch.zeros(4, 4, dtype=torch.int8), "fc.SCB": torch.ones(4)}
    save_file(tensors, folder / "q.safetensors")
    found = document(run, "q.safetensors")
    assert found["loads"] is False
    assert len(found["tensors"]) == 2
    assert "bitsandbytes" in found["refusal"]["reason"]


def test_a_format_that_is_refused_is_described(folder, run):
    (folder / "m.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(100))
    found = document(run, "m.gguf")
    assert (found["format"], found["loads"]) == ("GGUF", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), folder / "script.pt")
    script = document(run, "script.pt")
    assert (script["format"], script["loads"]) == ("torchscript", False)
    assert script["refusal"]["globals"] == []  # its own classes, which are no calls to the outside


def test_a_hugging_face_folder_is_read_as_json(folder, run):
    model = folder / "model"
    model.mkdir()
    config = {"architectures": ["NoSuchModel"], "model_type": "none", "auto_map": {"AutoModel": "code.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    save_file(tiny.weights(), model / "model.safetensors", {"format": "pt"})
    found = document(run, "model")
    assert found["format"] == "huggingface"
    assert found["architecture"]["architecture"] == "NoSuchModel"
    assert "never run" in found["architecture"]["own code"]
    assert found["totals"]["parameters"] == tiny.PARAMETERS


def test_an_adapter_names_its_base(folder, run):
    adapter = folder / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 2, "task_type": None}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a.lora_A.weight": torch.zeros(2, 4)}, adapter / "adapter_model.safetensors")
    found = document(run, "adapter")
    assert found["architecture"] == {"adapter": "LORA", "base model": "base", "rank": "2"}


def test_names_steer_no_terminal(folder, run):
    save_file({"a\x1b[31m\nb": torch.zeros(2)}, folder / "names.safetensors")
    result = run("inspect", "names.safetensors")
    assert "\x1b" not in result.stdout
    assert r"a\x1b[31m\nb" in result.stdout
    assert "a\x1b[31m\nb" in by_name(document(run, "names.safetensors"))


BAD = {
    "missing": (lambda folder: "nope.pt", 2, "no such file"),
    "a pipe": (lambda folder: (os.mkfifo(folder / "pipe"), "pipe")[1], 2, "neither a file nor a folder"),
    "empty": (lambda folder: ((folder / "e.pt").write_bytes(b""), "e.pt")[1], 3, "empty"),
    "random": (lambda folder: ((folder / "r").write_bytes(bytes(range(128, 256)) * 40), "r")[1], 3, "r: "),
    "text": (lambda folder: "audit.yaml", 3, "text file"),
    "cut": (
        lambda folder: ((folder / "c").write_bytes((folder / "weights.safetensors").read_bytes()[:-8]), "c")[1],
        3,
        "damaged",
    ),
    "a folder of something else": (lambda folder: ".", 3, "no checkpoint"),
}


@pytest.mark.parametrize("make", BAD)
def test_bad_input(folder, run, make):
    write, code, words = BAD[make]
    result = run("inspect", write(folder))
    assert result.exit_code == code
    assert result.stdout == ""
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "--debug" not in result.stderr
