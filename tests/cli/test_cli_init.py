"""`hessdiag init`: what it writes is valid, or its faults lie on the lines that are to be filled in."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from hessdiag.errors import SpecError
from hessdiag.spec import load_spec
from hessdiag.workflows.starter.examples import EXAMPLES
from hessdiag.workflows.starter.factories import find_factories, obvious
from hessdiag.workflows.starter.text import flow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare(folder: Path) -> Path:
    """The tiny checkpoint, its data and its model.py, and no spec yet."""
    (folder / "audit.yaml").unlink()
    return folder


def written(run, *args: str):
    """The spec that init wrote, valid at once."""
    result = run("init", "--force", *args)
    assert result.exit_code == 0, result.stderr
    assert "to fill in" not in result.stdout, result.stdout
    assert "next: hessdiag audit audit.yaml" in result.stdout
    return load_spec(Path("audit.yaml"))


def left_open(run, *args: str) -> dict[str, str]:
    """By its line in the spec that init wrote, what is to be filled in; ``validate`` finds a fault on one of them."""
    result = run("init", "--force", *args)
    assert result.exit_code == 0, result.stderr
    lines = Path("audit.yaml").read_text(encoding="utf-8").splitlines()
    told = re.findall(r"^  audit\.yaml:(\d+):\d+: (.*)$", result.stdout, re.MULTILINE)
    assert "next: hessdiag validate audit.yaml" in result.stdout
    with pytest.raises(SpecError) as caught:
        load_spec(Path("audit.yaml"))
    assert {fault.line for fault in caught.value.diagnostics} <= {int(line) for line, _ in told}
    marked = [number for number, line in enumerate(lines, 1) if "# FILL_IN:" in line]
    assert marked == [int(line) for line, _ in told]
    return {lines[number - 1].strip().partition("  ")[0]: lines[number - 1] for number in marked}


def test_a_complete_answer_is_measured_at_once(bare, run):
    spec = written(run, "--checkpoint", "weights.safetensors", "--data", "data.npz")
    assert (spec.model.class_path, spec.model.checkpoint) == ("model.py:build", "weights.safetensors")
    assert (spec.data.format, spec.data.inputs, spec.data.targets) == ("npz", "x", "y")
    assert spec.loss.name == "cross_entropy"
    text = Path("audit.yaml").read_text()
    assert "0.weight (5, 4) float32" in text
    assert "x: (30, 4) float32" in text
    assert "its defaults: hidden: 5, outputs: 3" in text
    result = run("eigs", "audit.yaml", "--top", "1", "--quiet")
    assert result.exit_code == 0, result.stderr


def test_paths_are_relative_to_the_spec(bare, run):
    (bare / "specs").mkdir()
    result = run("init", "--checkpoint", "weights.safetensors", "--data", "data.npz", "--out", "specs/a b.yaml")
    assert result.exit_code == 0
    spec = load_spec(Path("specs/a b.yaml"))
    assert spec.model.checkpoint == "../weights.safetensors"
    assert spec.model.class_path == "../model.py:build"  # found beside the checkpoint
    assert spec.data.path == "../data.npz"
    assert "next: hessdiag audit 'specs/a b.yaml'" in result.stdout


def test_nothing_said_leaves_everything_open(bare, run):
    (bare / "model.py").unlink()
    assert list(left_open(run)) == [
        "class_path: model.py:build",
        "checkpoint: FILL_IN.safetensors",
        "path: FILL_IN.npz",
    ]


def test_an_unclear_factory_is_left_open(bare, run):
    (bare / "model.py").write_text("def build_a(): ...\ndef build_b(width): ...\n")
    args = ("--checkpoint", "weights.safetensors", "--data", "data.npz")
    assert "model.py:build_a or model.py:build_b" in left_open(run, *args)["class_path: FILL_IN"]
    opened = left_open(run, *args, "--model", "model.py:build_b")
    assert "{width: ...}" in opened["init_args: FILL_IN"]
    assert written(run, *args, "--model", "model.py:build_a").model.class_path == "model.py:build_a"
    assert written(run, *args, "--model", "torch.nn.Linear").model.class_path == "torch.nn.Linear"


FILES = {
    "one function": ("def build(a=1): ...", "build"),
    "a function before classes": ("from torch import nn\nclass N(nn.Module): ...\ndef make_net(): ...", "make_net"),
    "a class": ("from torch import nn\nclass Net(nn.Module):\n  def __init__(self, a, *, b=2): ...", "Net"),
    "a class made of others": (
        "import torch\nclass Block(torch.nn.Module): ...\nclass Net(torch.nn.Module):\n"
        "  def __init__(self):\n    self.block = Block()",
        "Net",
    ),
    "a Lightning module": ("import lightning as L\nclass Lit(L.LightningModule): ...", "Lit"),
    "two classes": ("from torch import nn\nclass A(nn.Module): ...\nclass B(nn.Module): ...", None),
    "helpers": ("def train(): ...\ndef _build(): ...\ndef builder_notes(): ...", None),
    "a syntax error": ("def build(:", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize("name", FILES)
def test_the_obvious_factory(tmp_path, name):
    source, expected = FILES[name]
    (tmp_path / "m.py").write_text(f"raise RuntimeError('imported')\n{source}")
    factory = obvious(find_factories(tmp_path / "m.py"))
    assert (factory.name if factory else None) == expected
    if name == "a class":
        assert (factory.required, factory.defaults) == (("a",), {"b": "2"})


def write_images(folder: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.PNG", "val/cat/1.png"):
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / name).write_bytes(b"")


def write_idx(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with gzip.open(raw / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(b"\0\0\x08\3" + struct.pack(">III", 1, 2, 2) + bytes(4))


def write_dataset(folder: Path) -> None:
    (folder / "set" / "train").mkdir(parents=True)
    (folder / "set" / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    features = {
        "premise": {"dtype": "string", "_type": "Value"},
        "hypothesis": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        "idx": {"dtype": "int32", "_type": "Value"},
    }
    (folder / "set" / "train" / "dataset_info.json").write_text(json.dumps({"features": features}))


def lines(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


DATA = {
    "npz of images": (
        lambda f: np.savez(f / "d.npz", images=np.zeros((4, 3, 2, 2), "f4"), labels=np.zeros(4, int)),
        "d.npz",
        {"inputs": "images", "targets": "labels"},
        "cross_entropy",
    ),
    "npz without names": (
        lambda f: np.savez(f / "d.npz", np.zeros((4, 2)), np.zeros(4)),
        "d.npz",
        {"inputs": "arr_0", "targets": "arr_1"},
        "mse",
    ),
    "npz of tokens": (
        lambda f: np.savez(
            f / "d.npz", **{name: np.ones((2, 3), int) for name in ("input_ids", "attention_mask", "labels")}
        ),
        "d.npz",
        {"inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask"}, "targets": "labels"},
        "cross_entropy",
    ),
    "one npy of a folder": (
        lambda f: [(f / "a").mkdir(), np.save(f / "a/x.npy", np.zeros((3, 2))), np.save(f / "a/y.npy", np.zeros(3))],
        "a/x.npy",
        {"format": "npz", "path": "a", "inputs": "x", "targets": "y"},
        "mse",
    ),
    "safetensors": (
        lambda f: save_arrays({"x": np.zeros((3, 2)), "y": np.zeros(3, int)}, f / "d.safetensors"),
        "d.safetensors",
        {"format": "safetensors", "inputs": "x", "targets": "y"},
        "cross_entropy",
    ),
    "csv of numbers": (
        lambda f: (f / "d.csv").write_text(lines("a,b,target", "1,2.5,0", "2,1e-3,1")),
        "d.csv",
        {"format": "csv", "inputs": None, "targets": "target"},
        "cross_entropy",
    ),
    "csv of words": (
        lambda f: (f / "d.csv").write_text(lines("id;note;a;kind", "1;hm;2.5;cat", "2;so;3;bat", "3;x;4;cat")),
        "d.csv",
        {"delimiter": ";", "inputs": ("a",), "targets": "kind", "classes": ("bat", "cat")},
        "cross_entropy",
    ),
    "csv with hostile names": (
        lambda f: (f / "d.csv").write_text(lines('"a\r#: b",no,1e-3,"y\x1b[31m"', "1,2,3,0.5")),
        "d.csv",
        {"inputs": None, "targets": "y\x1b[31m"},
        "mse",
    ),
    "idx": (write_idx, ".", {"format": "idx", "path": "MNIST/raw", "split": "train"}, "cross_entropy"),
    "pictures": (write_images, "pictures", {"format": "imagefolder", "split": "train"}, "cross_entropy"),
    "pictures of one split": (
        write_images,
        "pictures/val",
        {"format": "imagefolder", "path": "pictures/val", "split": None},
        "cross_entropy",
    ),
    "cifar": (
        lambda f: (
            [(f / "cifar-10-batches-bin").mkdir()]
            + [
                (f / "cifar-10-batches-bin" / name).write_bytes(b"")
                for name in ("data_batch_1.bin", "batches.meta.txt")
            ]
        ),
        ".",
        {"format": "cifar", "path": "cifar-10-batches-bin", "split": "train"},
        "cross_entropy",
    ),
    "graphs": (
        lambda f: (
            [(f / "G").mkdir()]
            + [(f / "G" / f"G_{name}.txt").write_text("1, 2\n") for name in ("A", "graph_indicator", "graph_labels")]
        ),
        "G",
        {"format": "tudataset", "task": "graph"},
        "cross_entropy",
    ),
    "a function": (
        lambda f: (f / "loader.py").write_text("def make(): ..."),
        "loader.py:make",
        {"format": "python", "path": "loader.py:make"},
        "cross_entropy",
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_data_are_asked(bare, run, name):
    write, path, expected, loss = DATA[name]
    for file in ("data.npz", "model.py"):
        (bare / file).rename(bare.parent / f"{bare.name}-{file}")
    (bare / "net.py").write_text(tiny.MODEL)
    write(bare)
    spec = written(run, "--checkpoint", "weights.safetensors", "--data", path, "--model", "net.py:build")
    assert {key: getattr(spec.data, key) for key in expected} == expected
    assert {key for key, value in expected.items() if value is not None} <= spec.data.model_fields_set  # no defaults
    assert spec.loss.name == loss
    assert "\x1b" not in Path("audit.yaml").read_text()


BATCHED = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
def make():
    arrays = np.load("data.npz")
    pairs = TensorDataset(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
    return {returned}
"""


@pytest.mark.parametrize("returned", ["pairs", "DataLoader(pairs, batch_size=8)", "[pairs[:8], pairs[8:]]"])
def test_whatever_a_function_returns_is_measured_at_once(bare, run, returned):
    (bare / "loader.py").write_text(BATCHED.replace("{returned}", returned))
    spec = written(run, "--checkpoint", "weights.safetensors", "--data", "loader.py:make")
    assert "batch_size" not in spec.data.model_fields_set
    assert "# batch_size: 256" in Path("audit.yaml").read_text()
    result = run("eigs", "audit.yaml", "--top", "1", "--quiet")
    assert result.exit_code == 0, result.stderr


def test_parquet_is_asked(bare, run):
    pa = pytest.importorskip("pyarrow", reason="the extra tabular is not installed")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": [1.0, 2.0], "label": [0.5, 1.5]}), bare / "d.parquet")
    spec = written(run, "--checkpoint", "weights.safetensors", "--data", "d.parquet")
    assert (spec.data.format, spec.data.targets, spec.loss.name) == ("parquet", "label", "mse")


def hugging_face(folder: Path, architecture: str, *, tokenizer: bool, **more: object) -> None:
    (folder / "model").mkdir()
    config = {"architectures": [architecture], "model_type": "gpt2", **more}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    save_file(tiny.weights(), folder / "model" / "model.safetensors", {"format": "pt"})
    if tokenizer:
        (folder / "model" / "tokenizer.json").write_text("{}")


def test_a_hugging_face_folder_needs_no_factory(bare, run):
    hugging_face(bare, "BertForSequenceClassification", tokenizer=True)
    write_dataset(bare)
    spec = written(run, "--checkpoint", "model", "--data", "set")
    assert (spec.model.class_path, spec.model.checkpoint) == (None, "model")
    assert (spec.data.format, spec.data.split, spec.data.tokenizer) == ("hf", "train", "model")
    assert spec.data.inputs == ["premise", "hypothesis"] or spec.data.inputs == ("premise", "hypothesis")
    assert (spec.data.targets, spec.loss.name) == ("label", "cross_entropy")


USUAL = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
PICTURES = {
    "a square": ({"size": {"height": 8, "width": 8}, **HALVES}, {}, (8, 8), ((0.5,) * 3, (0.25,) * 3)),
    "a number": ({"size": 8, "image_mean": 0.5, "image_std": 1e-05}, {"image_size": 9}, (8, 8), ((0.5,), (1e-05,))),
    "a shorter side and a crop": (
        {"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}, "image_mean": [0.5]},
        {},
        (10, 8),
        USUAL,
    ),
    "a crop that is not taken": ({"size": 12, "crop_size": 8, "do_center_crop": False}, {}, (12, 12), USUAL),
    "a crop alone": ({"crop_size": 8}, {}, (8, 8), USUAL),
    "not normalised": ({"size": 8, "do_normalize": False, **HALVES}, {}, (8, 8), (None, None)),
    "only the network's size": ({}, {"image_size": 8}, (8, 8), USUAL),
    "the network's size by side": ({}, {"image_size": [8, 8]}, (8, 8), USUAL),
    "no square": ({"size": {"height": 8, "width": 6}}, {"image_size": [8, 6]}, (256, 224), USUAL),
    "nonsense": (
        {"size": -1, "crop_size": True, "image_mean": [float("nan")] * 3, "image_std": [10**400, 0, "1"]},
        {"image_size": 10**100},
        (256, 224),
        USUAL,
    ),
    "no numbers": ({"size": {}, "image_mean": [], "image_std": []}, {"image_size": []}, (256, 224), USUAL),
    "no JSON": ("{", {"image_size": 8}, (8, 8), USUAL),
    "nothing": (None, {}, (256, 224), USUAL),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_become_what_the_model_was_trained_on(bare, run, name):
    processor, config, sizes, normalised = PICTURES[name]
    hugging_face(bare, "ViTForImageClassification", tokenizer=False, **config)
    if processor is not None:
        content = processor if isinstance(processor, str) else json.dumps(processor)
        (bare / "model" / "preprocessor_config.json").write_text(content)
    write_images(bare)
    transform = written(run, "--checkpoint", "model", "--data", "pictures").data.transform
    assert (transform.resize, transform.crop) == sizes
    assert (transform.mean, transform.std) == normalised
    assert ("ImageNet's usual values" in Path("audit.yaml").read_text()) == (normalised == USUAL)


def test_a_language_model_is_its_own_target(bare, run):
    hugging_face(bare, "GPT2LMHeadModel", tokenizer=True)
    (bare / "t.jsonl").write_text(lines('{"text": "a b"}', '{"text": "c"}'))
    spec = written(run, "--checkpoint", "model", "--data", "t.jsonl")
    assert (spec.data.inputs, spec.data.targets, spec.loss.name) == ("text", None, "causal_lm")


def test_a_missing_tokenizer_is_left_open(bare, run):
    hugging_face(bare, "BertForSequenceClassification", tokenizer=False)
    write_dataset(bare)
    assert list(left_open(run, "--checkpoint", "model", "--data", "set")) == ["tokenizer: FILL_IN"]


def test_names_that_tell_nothing_are_left_open(bare, run):
    np.savez(bare / "odd.npz", foo=np.zeros((3, 2)), bar=np.zeros(3), baz=np.zeros(3))
    opened = left_open(run, "--checkpoint", "weights.safetensors", "--data", "odd.npz")
    assert list(opened) == ["inputs:", "targets:"]
    assert "one of foo, bar, baz" in opened["inputs:"]


def test_an_adapter_asks_for_its_base(bare, run):
    (bare / "adapter").mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "somewhere/else"}
    (bare / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a.lora_A.weight": torch.zeros(2, 4)}, bare / "adapter" / "adapter_model.safetensors")
    opened = left_open(run, "--checkpoint", "adapter", "--data", "data.npz")
    assert "somewhere/else" in opened["base: FILL_IN"]


def test_a_checkpoint_that_must_be_trusted_says_so(bare, run):
    torch.save(tiny.network(), bare / "whole.pt")
    result = run("init", "--checkpoint", "whole.pt", "--data", "data.npz")
    assert result.exit_code == 0
    assert "next: hessdiag audit audit.yaml --trust-checkpoint" in result.stdout
    assert load_spec(Path("audit.yaml")).model.class_path is None


def test_nothing_is_overwritten_unasked(bare, run):
    Path("audit.yaml").write_text("mine")
    result = run("init", "--checkpoint", "weights.safetensors", "--data", "data.npz")
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert "--force" in result.stderr
    assert Path("audit.yaml").read_text() == "mine"
    result = run("init", "--checkpoint", "weights.safetensors", "--out", "weights.safetensors", "--force")
    assert result.exit_code == 2
    assert Path("weights.safetensors").stat().st_size > 100


BAD = {
    "no checkpoint": (["--checkpoint", "nope.pt"], 2, "no such file"),
    "no data": (["--data", "nope.npz"], 2, "no such file"),
    "no python data": (["--data", "nope.py:make"], 2, "no such file"),
    "a damaged checkpoint": (["--checkpoint", "junk"], 3, "junk"),
    "a text as checkpoint": (["--checkpoint", "model.py"], 3, "text file"),
    "junk as data": (["--data", "junk"], 3, "no known format"),
    "cut data": (["--data", "cut.npz"], 3, "damaged"),
    "a folder of something else": (["--data", "."], 3, "no known format"),
    "a spec as data": (["--data", "mine.yaml"], 3, "found a YAML file, as a spec is"),
    "a spec on one line": (["--data", "flow.yml"], 3, "found a YAML file, as a spec is"),
    "a pipe as data": (["--data", "pipes/x.npy"], 2, "found neither a file nor a folder"),
    "a pipe in a folder": (["--data", "pipes"], 3, "holds 'x.npy', which is neither a file nor a folder"),
    "out is a folder": (["--out", "."], 2, "found a folder"),
    "out in a file": (["--out", "model.py/a.yaml"], 2, "could not be written"),
    "a refused checkpoint": (["--checkpoint", "m.gguf"], 3, "GGUF"),
    "unknown example": (["--example", "nope"], 2, "expected digits"),
    "an example and a checkpoint": (["--example", "digits", "--data", "data.npz"], 2, "brings its own"),
    "an example into a file": (["--example", "digits", "--out", "model.py"], 2, "expected a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(bare, run, name):
    (bare / "junk").write_bytes(bytes(range(128, 256)) * 9)
    (bare / "cut.npz").write_bytes((bare / "data.npz").read_bytes()[:200])
    (bare / "mine.yaml").write_text("model:\n  class_path: model.py:build\n")
    (bare / "flow.yml").write_text("{model: {checkpoint: a.pt}}")
    (bare / "pipes").mkdir()
    os.mkfifo(bare / "pipes" / "x.npy")
    (bare / "m.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(100))
    args, code, words = BAD[name]
    result = run("init", *args)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not (bare / "audit.yaml").exists()


def test_the_example_runs(bare, run):
    result = run("init", "--example", "digits")
    assert result.exit_code == 0
    assert "next: hessdiag audit digits/audit.yaml" in result.stdout
    assert sorted(path.name for path in Path("digits").iterdir()) == sorted(EXAMPLES["digits"])
    measured = run("eigs", "digits/audit.yaml", "--top", "1", "--bottom", "0", "--json", "--quiet")
    assert measured.exit_code == 0, measured.stderr
    assert json.loads(measured.stdout)["eigenvalues"]["largest"][0]["value"] == pytest.approx(0.8718, rel=1e-3)
    again = run("init", "--example", "digits")
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert run("init", "--example", "digits", "--force").exit_code == 0


def test_the_wheel_takes_the_examples_along():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert taken == {
        f"fixtures/{name}/{file}": f"hessdiag/examples/{name}/{file}"
        for name, files in EXAMPLES.items()
        for file in files
    }
    assert all((ROOT / source).is_file() for source in taken)


TEXTS = (
    "x",
    "no",
    "1e-3",
    "a: b",
    "#",
    "null",
    "a,b",
    "model.py:build",
    "C:\\x",
    "é",
    "\x85\u2028\x7f",
    "😀",
    "~",
    "-",
)


@pytest.mark.parametrize("value", TEXTS)
def test_text_reads_back_as_it_is(tmp_path, value):
    spec = tiny.write(tmp_path)
    inputs = f"  inputs: {{{flow(value)}: {flow(value)}}}"
    spec.write_text(spec.read_text().replace("  inputs: x", inputs), encoding="utf-8")
    assert load_spec(spec).data.inputs == {value: value}
