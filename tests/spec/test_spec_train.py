"""How a checkpoint is fine-tuned: defaults by method, and the validation data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
from spec_texts import BASE, Faults, Load, marked

from hessdiag.spec.data import CsvData, JsonlData, NpzData
from hessdiag.spec.names import TrainingMethod
from hessdiag.spec.train import AugmentSpec, ConstantSchedule, StepSchedule, TrainSpec

METHODS = get_args(TrainingMethod)


def test_defaults_are_the_papers(load: Load) -> None:
    train = load(BASE).train
    assert train == load(BASE + "train: {}").train == TrainSpec()
    assert (train.method, train.lr, train.batch_size, train.epochs) == ("nso", 0.02, 32, 30)
    assert train.schedule == StepSchedule(every=10, factor=0.1)
    assert (train.optimizer.name, train.optimizer.options()) == ("SGD", {})
    assert (train.momentum, train.weight_decay, train.distance_l2, train.clip_norm) == (0, 0, 0, None)
    assert (train.augment, train.early_stopping, train.validation, train.seed) == (None, None, 0.1, 0)
    assert (train.monitor_every, train.monitor_examples, train.monitor_share) == (1, 1000, 0.15)


NOISE = {"sigma": 0.01, "num_perturbations": 1, "distribution": "gaussian"}
ORTHOGONAL = {"rho": 0.05, "eps0": math.inf, "descent_lr": None}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("nso", NOISE),
        ("sgd", {}),
        ("label-smoothing", {}),
        ("wp-sgd", NOISE),
        ("sam", {"rho": 0.02}),
        ("asam", {"rho": 1.0}),
        ("rsam", {"rho": 0.02, "sigma": 0.01, "lam": 2.0}),
        ("bsam", {"rho": 0.02, "damping": 0.1, "precision": 1.0, "betas": (0.9, 0.999)}),
        ("rsp", ORTHOGONAL),
        ("sap", ORTHOGONAL),
    ],
)
def test_options_of_a_method(load: Load, method: TrainingMethod, options: dict[str, Any]) -> None:
    train = load(BASE + f"train: {{method: {method}}}").train
    assert train == TrainSpec(method=method)
    assert train.method_options() == options


def test_what_is_written_beats_the_methods_default(load: Load) -> None:
    train = load(BASE + "train: {method: rsp, rho: 1, eps0: 0.5, descent_lr: 3, gradient: full}").train
    assert train.method_options() == {"rho": 1.0, "eps0": 0.5, "descent_lr": 3.0}
    assert train.gradient == "full"
    assert TrainSpec(method="label-smoothing").smoothing == 0.1


@pytest.mark.parametrize("method", METHODS)
def test_only_keys_of_the_method_stand_in_a_resolved_spec(method: TrainingMethod) -> None:
    content = TrainSpec(method=method).model_dump()
    assert {"sigma", "rho"} & set(content) == {
        *(["sigma"] if method in ("nso", "wp-sgd", "rsam") else []),
        *(["rho"] if method in ("sam", "asam", "rsam", "bsam", "rsp", "sap") else []),
    }
    assert ("momentum" in content) == (method != "bsam")
    assert TrainSpec.model_validate(content) == TrainSpec(method=method)


def test_short_forms(load: Load) -> None:
    train = load(BASE + "train: {schedule: constant, optimizer: {name: AdamW, betas: [0.9, 0.99]}, augment: {crop: 4}}")
    assert train.train.schedule == ConstantSchedule()
    assert train.train.optimizer.options() == {"betas": [0.9, 0.99]}
    assert train.train.augment == AugmentSpec(crop=4, flip=False)


def test_another_method_keeps_what_means_the_same_to_it() -> None:
    nso = TrainSpec(sigma=0.1, num_perturbations=2, momentum=0.9, epochs=3)
    wp = nso.by_method("wp-sgd", epochs=6)
    assert wp == TrainSpec(method="wp-sgd", sigma=0.1, num_perturbations=2, momentum=0.9, epochs=6)
    assert nso.by_method("sgd") == TrainSpec(method="sgd", momentum=0.9, epochs=3)
    assert nso.by_method("bsam") == TrainSpec(method="bsam", epochs=3)  # which has a momentum of its own
    assert TrainSpec(method="sam", rho=0.05).by_method("asam") == TrainSpec(method="asam")
    assert nso.by_method("nso") == nso


def test_the_scale_at_which_the_gap_is_monitored() -> None:
    assert TrainSpec(sigma=0.1).monitor_sigma == 0.1
    # None, no noise, and noise in units of a filter's norm.
    for other in (TrainSpec(method="sam"), TrainSpec(sigma=0), TrainSpec(method="rsam", sigma=0.5)):
        assert other.monitor_sigma == 0.01


# -- validation data -----------------------------------------------------------------------------------------


def test_a_fraction_is_no_data(load: Load) -> None:
    assert load(BASE).validation_data() is None
    assert load(BASE + "train: {validation: 0}").validation_data() is None


def test_a_mapping_lies_over_the_data(load: Load, folder: Path) -> None:
    (folder / "val.npz").touch()
    spec = load(
        BASE.replace("targets: y", "targets: y, max_examples: 9, batch_size: 8")
        + "train: {validation: {path: val.npz, max_examples: null}}"
    )
    expected = {"path": "val.npz", "inputs": "x", "targets": "y", "batch_size": 8, "max_examples": None}
    assert spec.validation_data() == NpzData(format="npz", **expected)
    assert isinstance(spec.data, NpzData)
    assert (spec.data.path, spec.data.max_examples) == ("digits.npz", 9)


def test_a_mapping_of_another_format_stands_alone(load: Load, folder: Path) -> None:
    (folder / "val.csv").touch()
    spec = load(BASE + "train: {validation: {format: csv, path: val.csv, targets: label}}")
    assert spec.validation_data() == CsvData(format="csv", path="val.csv", targets="label")


BAD = [
    ("{§batch_sise: 3}", "train.validation.batch_sise: unknown key; did you mean batch_size?"),
    ("{§transform: {}}",
     "train.validation.transform: unknown key; expected one of: format, max_examples, seed, batch_size, path, inputs, "
     "targets"),
    ("{batch_size: §0}", "train.validation.batch_size: found 0, expected a whole number of at least 1"),
    ("{inputs: [a, §3]}", "train.validation.inputs[1]: found 3, expected text; write it in quotes"),
    ("{path: §val.npz}", "train.validation.path: no such file: 'val.npz' (looked in DIR)"),
    ("{format: §nzp}", "train.validation.format: found 'nzp', expected npz, safetensors, idx, cifar, imagefolder, csv, "
     "parquet, jsonl, hf, sklearn, tudataset or python"),
    ("§{format: sklearn}", "train.validation.name: missing; expected which one"),
    ("{format: python, path: §val.py:f}", "train.validation.path: no such file: 'val.py' (looked in DIR)"),
    ("{targets: §null}",
     "train.validation.targets: found nothing (null); expected the name of what the loss cross_entropy compares "
     "outputs with"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text for text, _ in BAD])
def test_faults_of_the_validation_data_have_their_place(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(BASE + f"train: {{validation: {text}}}")
    assert faults(plain) == [(line, column, message)]


def test_a_fault_of_the_data_is_told_once(faults: Faults) -> None:
    text = BASE.replace("inputs: x, ", "batch_size: 0, ") + "train: {validation: {seed: -1}}"
    assert faults(text) == [
        (2, 7, "data.inputs: missing; expected an array name, for model(x); a list of them, for model(*x); or a "
         "mapping from argument to array name, for model(**x)"),
        (2, 51, "data.batch_size: found 0, expected a whole number of at least 1"),
        (3, 28, "train.validation.seed: found -1, expected a whole number of at least 0"),
    ]  # fmt: skip
    alone = BASE.replace("inputs: x", "inputs: 3") + "train: {validation: {format: sklearn}}"
    assert [message.partition(":")[0] for *_, message in faults(alone)] == ["data.inputs", "train.validation.name"]
    missing = BASE.replace("digits.npz", "digit.npz") + "train: {validation: {seed: 3}}"
    assert faults(missing) == [(2, 27, "data.path: no such file: 'digit.npz' (looked in DIR)")]
    none = "model: {class_path: a.b}\ntrain: {validation: {seed: 3}}"
    assert faults(none) == [(1, 1, "data: missing; expected the data on which the loss is taken")]
    broken = "model: {class_path: a.b}\ndata: !!x {}\ntrain: {validation: {seed: 3}}"
    assert [message for *_, message in faults(broken)] == [
        "data: unknown tag !!x; expected none, because a spec holds no objects"
    ]


def test_what_does_not_go_with_the_data_is_told(faults: Faults, folder: Path) -> None:
    """The key is the data's, the fault the validation data's own."""
    (folder / "texts.jsonl").touch()
    (folder / "tokens").mkdir()
    data = "{format: jsonl, path: texts.jsonl, inputs: text, targets: y, tokenizer: tokens, max_length: 9}"
    text = f"model: {{class_path: a.b}}\ndata: {data}\n"
    validation = "train: {validation: {tokenizer: null}}"
    assert faults(text + validation) == [
        (2, 99, "train.validation.max_length: found 9, expected none without a tokenizer")
    ]
    assert faults(text + "train: {validation: {inputs: {a: b}}}") == [
        (3, 30, "train.validation.inputs: found a mapping, expected the name of a field of texts, or a list of two, "
         "beside a tokenizer"),
    ]  # fmt: skip


def test_a_tokenizer_of_its_own(load: Load, folder: Path) -> None:
    (folder / "texts.jsonl").touch()
    (folder / "tokens").mkdir()
    data = "data: {format: jsonl, path: texts.jsonl, inputs: text, targets: y}\n"
    spec = load("model: {class_path: a.b}\n" + data + "train: {validation: {tokenizer: tokens}}")
    assert isinstance(spec.train.validation, JsonlData)
    assert spec.train.validation.tokenizer == "tokens"


# -- what one key says of another ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {schedule: {name: cosine, warmup: §3}, epochs: 3}",
         "train.schedule.warmup: found 3, expected fewer than the 3 epochs of the run"),
        ("train: {early_stopping: 3, validation: §0}",
         "train.validation: found 0, expected a fraction above 0, or validation data, for early_stopping"),
        ("train: {method: sap, rho: §0}", "train.rho: found 0, expected a finite number greater than 0 for method sap"),
        ("loss: mse\ntrain: {method: §label-smoothing}",
         "train.method: found 'label-smoothing', expected another method: the loss mse has no label_smoothing"),
        # A faulty method is told by itself.
        ("train: {method: §ns, sigma: 0.1}",
         "train.method: found 'ns', expected nso, sgd, label-smoothing, wp-sgd, sam, asam, rsam, bsam, rsp or sap"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(BASE + text)
    [(found_line, found_column, found)] = faults(plain)
    assert (found_line, found_column) == (line, column)
    assert found.startswith(message)
