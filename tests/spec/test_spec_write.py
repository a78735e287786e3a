"""A spec that is written back loads again to an equal spec, from whatever folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_texts import BASE
from test_spec_load import CONTRACT

from hessdiag.spec import Spec, json_schema, load_spec
from hessdiag.spec.compose import compose
from hessdiag.spec.losses import CrossEntropySpec
from hessdiag.spec.names import DataFormat, TrainingMethod
from hessdiag.spec.train import TrainSpec
from hessdiag.spec.write import moved, spec_text

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures").glob("*/audit.yaml"))

DATA = {
    "npz": "path: d, inputs: [x, z], targets: y",
    "safetensors": "path: f, inputs: {ids: x}, targets: y, max_examples: 7, seed: 3",
    "idx": "path: d, split: test, mean: [0.5], std: [0.1], inputs: images-idx3-ubyte.gz",
    "cifar": "path: d, labels: coarse, mean: [0.4, 0.5, 0.6]",
    "imagefolder": "path: d, split: val, transform: {resize: 256, crop: 224, std: [0.1]}",
    "csv": "path: f, inputs: {x: [a, b]}, targets: y, classes: ['no', 'yes', '1'], delimiter: \"\\t\"",
    "parquet": "path: d, targets: y",
    "jsonl": "path: f, inputs: [one, two], targets: y, tokenizer: d, max_length: 9",
    "hf": "path: d, inputs: text, targets: label, split: train, tokenizer: d",
    "sklearn": "name: iris, standardize: true",
    "tudataset": "path: d, name: MUTAG, task: graph, features: degree, inputs: {x: x, edges: edge_index}",
    "python": "path: f.py:batches, init_args: {count: 3, folder: ~, deep: {a: [1, 2.5, {b: 'null'}]}}",
}
MODEL = "model: {class_path: f.py:build, checkpoint: w.pt}\n"
SPECS = {
    "contract": CONTRACT.replace("digits.npz", "f").replace("model.py", "f.py").replace("mlp.safetensors", "w.pt"),
    **{name: MODEL + f"data: {{format: {name}, {rest}}}" for name, rest in DATA.items()},
    "module": "model: {class_path: torch.nn.Linear, init_args: {out: 3}}\ndata: {format: csv, path: f, targets: y}",
    "whole checkpoint": "model: {checkpoint: d, base: d, adapter: merged}\ndata: {format: sklearn, name: iris}",
    "no module of data": MODEL + "data: {format: python, path: a.b}",
    "loss": MODEL + "data: {format: sklearn, name: iris}\nloss: f.py:loss",
    "options of a loss": MODEL + "data: {format: sklearn, name: iris}\nloss: {name: nll, weight: [1, 0.5, 0]}",
    "audit": MODEL
    + "data: {format: sklearn, name: iris}\n"
    + "audit: {eigenvalues: null, gap: {sigma: auto}, density: {}, max_time: 1h30m, memory: 4GiB}",
    "train": MODEL
    + "data: {format: sklearn, name: iris}\n"
    + "train: {schedule: {name: cosine, warmup: 0.5}, optimizer: {name: AdamW, betas: [0.9, 0.99], fused: null}, "
    + "augment: {flip: true}, validation: {name: digits, max_examples: 3}}",
    "validation of another format": MODEL
    + "data: {format: sklearn, name: iris}\n"
    + "train: {validation: {format: csv, path: f, targets: y}}",
    "a loss that needs no targets": MODEL + "data: {format: npz, path: f, inputs: x}\nloss: model",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with whatever the specs name."""
    folder = tmp_path / "project"
    (folder / "d").mkdir(parents=True)
    for name in ("f", "f.py", "w.pt"):
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema())


def references(spec: Spec) -> list[Path]:
    """Where what the spec names lies, links and all resolved."""
    parts = [spec.model, spec.data, spec.validation_data(), spec.loss]
    names = [getattr(part, key, None) for part in parts for key in ("class_path", "checkpoint", "base", "path")]
    names += [getattr(part, key, None) for part in parts for key in ("tokenizer", "name")]
    files = [name.partition(":")[0] for name in names if name is not None]
    return [path.resolve() for path in map(spec.resolve, files) if path.exists()]


def round_trip(spec: Spec, out: Path, absolute: bool) -> Spec:
    there = moved(spec, out, absolute=absolute)
    out.mkdir(parents=True, exist_ok=True)
    text = spec_text(there)
    (out / "spec.yaml").write_text(text, encoding="utf-8")
    again = load_spec(out / "spec.yaml")
    assert again == there
    assert spec_text(again) == text
    assert references(again) == references(spec) != []
    return again


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in SPECS.items()])
def test_a_spec_comes_back(folder: Path, validator: jsonschema.Draft202012Validator, text: str, absolute: bool) -> None:
    (folder / "audit.yaml").write_text(text)
    spec = load_spec(folder / "audit.yaml")
    again = round_trip(spec, folder / "runs" / "one", absolute)
    assert moved(again, folder) == spec  # and all the way home
    root, faults = compose(spec_text(again), "")
    assert root
    assert not faults
    validator.validate(root.plain())


@pytest.mark.parametrize("path", [pytest.param(path, id=path.parent.name) for path in FIXTURES])
def test_the_fixtures_come_back(path: Path, tmp_path: Path) -> None:
    round_trip(load_spec(path), tmp_path, absolute=False)
    round_trip(load_spec(path), tmp_path, absolute=True)


def test_the_cases_are_complete() -> None:
    assert sorted(DATA) == sorted(get_args(DataFormat))
    assert len(FIXTURES) == 3


@pytest.mark.parametrize("method", get_args(TrainingMethod))
def test_every_method_comes_back_with_its_keys(folder: Path, method: str) -> None:
    (folder / "audit.yaml").write_text(f"{SPECS['sklearn']}\ntrain: {{method: {method}}}")
    train = round_trip(load_spec(folder / "audit.yaml"), folder / "run", absolute=False).train
    assert train == TrainSpec(method=method)


def test_links_are_not_gone_up_from(folder: Path, tmp_path: Path) -> None:
    """Of a folder that is a link, ".." is the folder above what it leads to."""
    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    (folder / "runs").symlink_to(far)
    (folder / "link").symlink_to(far)
    (folder / "w.safetensors").symlink_to(folder / "w.pt")  # a name that says more than that of its target
    (far.parent / "data").touch()
    text = "model: {class_path: f.py:b, checkpoint: w.safetensors}\ndata: {format: csv, path: link/../data, targets: y}"
    (folder / "audit.yaml").write_text(text)
    again = round_trip(load_spec(folder / "audit.yaml"), folder / "runs", absolute=False)
    assert Path(str(again.model.checkpoint)).name == "w.safetensors"


def test_a_home_folder_is_spelt_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    (folder / "audit.yaml").write_text(SPECS["csv"].replace("path: f", "path: ~/f"))
    spec = moved(load_spec(folder / "audit.yaml"), folder / "run")
    assert getattr(spec.data, "path", None) == os.path.join("..", "f")


def test_a_trained_runs_folder_holds_it(folder: Path) -> None:
    """Its last weights, the loss unsmoothed; all else as in the spec that was trained."""
    text = SPECS["sklearn"].replace("pt}", "pt, weights: ema}") + "\nloss: {name: cross_entropy, label_smoothing: 0.1}"
    (folder / "audit.yaml").write_text(text)
    run = folder / "run"
    there = round_trip(load_spec(folder / "audit.yaml"), run, absolute=False)
    (run / "last.safetensors").touch()
    again = load_spec(run)
    last = there.model.model_copy(update={"checkpoint": "last.safetensors", "weights": "model"})
    assert again == there.model_copy(update={"model": last, "loss": CrossEntropySpec()})


NUMBERS = ["1e3", "1_000", "0o10", "010", "0x1f", "1:30", "2001-01-01"]
WORDS = ["", "no", "on", "~", "null", "<<", "=", "-", "*a", "&a", "!a", "\x85", "\u2028", "\ufeff"]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(NUMBERS + WORDS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=7),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_any_arguments_come_back(arguments: dict[str, object]) -> None:
    spec = Spec.model_validate({**yaml.safe_load(BASE), "model": {"class_path": "a.b", "init_args": arguments}})
    root, faults = compose(spec_text(spec), "")
    assert root
    assert not faults
    back = root.find("model", "init_args")
    assert back
    assert back.plain() == arguments
