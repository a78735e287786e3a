from __future__ import annotations

import pytest
from spec_texts import BASE, Faults, Load

from hessdiag.errors import SpecError
from hessdiag.spec.data import NpzData
from hessdiag.spec.train import CosineSchedule, StepSchedule


def test_overrides_beat_the_spec_and_later_ones_the_earlier(load: Load) -> None:
    spec = load(BASE + "loss: mse\n", "data.batch_size=8", "data.batch_size=16", "audit.trace.rtol=1e-2", "audit.gap=")
    assert spec.data.batch_size == 16
    assert spec.audit.trace is not None
    assert spec.audit.trace.rtol == 0.01
    assert spec.audit.gap is None  # an empty value is null, as in the file


def test_values_are_yaml(load: Load) -> None:
    spec = load(
        BASE, "parameters.include=[fc1.*, 'fc2.*']", 'model.init_args={hidden: 3, name: "a=b"}', "data.inputs=no"
    )
    assert spec.parameters.include == ("fc1.*", "fc2.*")
    assert spec.model.init_args == {"hidden": 3, "name": "a=b"}
    assert spec.data.inputs == "no"


def test_missing_and_null_mappings_are_made(load: Load) -> None:
    audit = load(BASE + "audit: {gap: null}", "audit.gap.draws=7", "audit.density.points=32").audit
    assert audit.gap is not None
    assert audit.gap.draws == 7
    assert audit.density is not None
    assert audit.density.points == 32
    assert load(BASE, "model.init_args.a.b.c=1").model.init_args == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("", "cross_entropy"),
        ("loss: causal_lm", "causal_lm"),
        ("loss: {name: causal_lm, ignore_index: 0}", "causal_lm"),
    ],
)
def test_an_option_of_the_loss(load: Load, loss: str, name: str) -> None:
    spec = load(BASE + loss, "loss.label_smoothing=0.1")
    assert spec.loss.name == name
    assert spec.loss.options()["label_smoothing"] == 0.1
    assert spec.loss.options()["ignore_index"] == (0 if "index" in loss else -100)


def test_an_option_of_the_schedule_and_of_the_optimizer(load: Load) -> None:
    train = load(BASE, "train.schedule.every=5", "train.optimizer.dampening=0.1").train
    assert train.schedule == StepSchedule(every=5)
    assert (train.optimizer.name, train.optimizer.options()) == ("SGD", {"dampening": 0.1})
    train = load(BASE + "train: {schedule: cosine, optimizer: AdamW}", "train.schedule.warmup=2").train
    assert train.schedule == CosineSchedule(warmup=2)
    assert train.optimizer.name == "AdamW"


def test_an_override_of_data_reaches_the_validation_data_unless_they_say_otherwise(load: Load) -> None:
    text = BASE + "train: {validation: {inputs: x_val}}"
    data = load(text, "data.batch_size=7", "data.inputs=z", "train.validation.targets=y_val").validation_data()
    assert isinstance(data, NpzData)
    assert (data.batch_size, data.inputs, data.targets) == (7, "x_val", "y_val")


def test_target_replaces_class_path_and_the_other_way_round(load: Load) -> None:
    assert load(BASE, "model._target_=a.b").model.class_path == "a.b"
    assert load(BASE.replace("class_path", "_target_"), "model.class_path=a.b").model.class_path == "a.b"
    assert load("data: {format: npz, path: digits.npz, inputs: x, targets: y}", "model={_target_: a.b}")


def test_an_override_leaves_what_shares_its_anchor(load: Load) -> None:
    spec = load(BASE + "parameters: {include: [a]}", "model.init_args={x: &v {k: 1}, y: *v}", "model.init_args.x.k=2")
    assert spec.model.init_args == {"x": {"k": 2}, "y": {"k": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size", "malformed; expected KEY.PATH=VALUE, for example data.batch_size=64"),
        ("data..batch_size=3", "malformed; expected KEY.PATH=VALUE, for example data.batch_size=64"),
        ("=3", "malformed; expected KEY.PATH=VALUE, for example data.batch_size=64"),
        ("", "malformed; expected KEY.PATH=VALUE, for example data.batch_size=64"),
        ("data.path.x=3", "data.path is 'digits.npz', expected a mapping; set it as a whole"),
        ("parameters.include.0=a", "parameters.include is a list, expected a mapping; set it as a whole"),
        ("data.batch_size=many", "data.batch_size: found 'many', expected a whole number of at least 1"),
        ("data.batch_sise=3", "data.batch_sise: unknown key; did you mean batch_size?"),
        ("audit.gap.sigma=[1, -1]", "audit.gap.sigma[1]: found -1, expected a finite number greater than 0"),
        ("audit.gap={draws: 3, draws: 4}", "draws: duplicate key: given twice; keep one of them"),
        ("audit.gap=!!python/name:os.system x",
         "unknown tag !!python/name:os.system; expected a plain value, because a spec holds no objects"),
        ("data.path=none.npz", "data.path: no such file: 'none.npz' (looked in DIR)"),
        ("loss={label_smoothing: 0.1}", 'loss.name: missing; expected cross_entropy, mse, bce_with_logits, nll, '
         'causal_lm or model; or "file.py:name"'),
        ("train.validation.x=3", "train.validation.x: unknown key; expected one of: format, max_examples, seed, "
         "batch_size, path, inputs, targets"),
        ("train.lr.x=3", "train.lr: found a mapping, expected a finite number greater than 0"),
        ("train.rho=0.1", "train.rho: found with method nso, which has no such key; expected method sam, asam, rsam, "
         "bsam, rsp or sap"),
        ("data.targets=", "data.targets: found nothing (null); expected the name of what the loss "
         "cross_entropy compares outputs with"),
    ],
)  # fmt: skip
def test_faults_point_at_the_override(load: Load, folder, override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(BASE + "parameters: {include: [a]}", override)
    (fault,) = caught.value.diagnostics
    assert (fault.file, fault.line, fault.column) == (f"--set {override}", None, None)
    assert fault.message.replace(str(folder), "DIR") == message


def test_a_value_that_is_not_yaml(faults: Faults) -> None:
    ((line, column, message),) = faults(BASE, "data={format: npz")
    assert (line, column) == (None, None)
    assert message.startswith("not valid YAML: ")
