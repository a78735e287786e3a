"""The published schema against the loader: both take the same specs and refuse the same ones."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from spec_texts import BASE, Load
from test_spec_bad_values import BAD, BAD_DATA, BAD_HEAD
from test_spec_load import CONTRACT
from test_spec_quantities import BAD_AMOUNTS, BAD_TIMES

from hessdiag.errors import SpecError
from hessdiag.spec import json_schema
from hessdiag.spec.compose import compose


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"]
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


GOOD = [
    CONTRACT,
    BASE,
    BASE.replace("class_path", "_target_"),
    BASE.replace("inputs: x", "inputs: [x, z]"),
    BASE.replace("inputs: x", "inputs: {ids: x}"),
    BASE + "loss: {name: cross_entropy, label_smoothing: 0.1, weight: [1, 2]}",
    BASE + "loss: {name: mse}",
    BASE + "loss: 'model.py:f'",
    BASE + "loss: {name: 'model.py:f'}",
    BASE.replace(", targets: y", "") + "loss: model",
    BASE + "audit: {gap: null, density: {points: 32}}",
    BASE + "audit: {gap: {sigma: 0.1}}",
    BASE + "audit: {gap: {sigma: [0.1, 1]}}",
    BASE + "audit: {gap: {sigma: '0.1, 2e-1'}}",
    BASE + "audit: {gap: {sigma: '0.1:0.2:3'}}",
    BASE + "train: {}",
    BASE + "train: {sigma: 0, num_perturbations: 2, distribution: binomial-uncentered, clip_norm: 1, augment: null}",
    BASE + "train: {method: bsam, rho: 0.01, betas: [0.9, 0.99], damping: 0, precision: 2}",
    BASE + "train: {method: rsp, eps0: null, descent_lr: 0.1, gradient: full}",
    BASE + "train: {method: label-smoothing, smoothing: 0.3, early_stopping: 3}",
    BASE + "train: {schedule: constant, optimizer: Adagrad}",
    BASE + "train: {schedule: {name: cosine, warmup: 0.5, floor: 0.01}, optimizer: {name: AdamW, betas: [0.9, 0.99]}}",
    BASE + "train: {augment: {crop: 4, flip: true}, validation: {inputs: x_val, targets: y_val, max_examples: null}}",
    BASE + "train: {validation: 0, monitor_every: 0}",
    *(BASE + f"audit: {{memory: {amount}}}" for amount in ("4GB", "4 GiB", "0.5MB", "1000000", "1e9", "'12'", "2t")),
    *(BASE + f"audit: {{max_time: {time}}}" for time in ("0.5", "10m", "1h30m", "2h 5s", "'90'", "1.5h", "null")),
]


@pytest.mark.parametrize("text", GOOD)
def test_good_specs(validator: jsonschema.Draft202012Validator, load: Load, text: str) -> None:
    load(text)
    validator.validate(_plain(text))


def _plain(text: str) -> Any:
    root, faults = compose(text, "")
    assert root
    assert not faults
    return root.plain()


def _bad() -> list[str]:
    head, data = BASE.splitlines()
    texts = [BASE + text for text, _ in BAD]
    texts += [BASE + f"audit: {{max_time: '{time}'}}" for time in BAD_TIMES if len(time) < 99]
    texts += [BASE + f"audit: {{memory: '{amount}'}}" for amount in BAD_AMOUNTS if amount != "0.5" and len(amount) < 99]
    texts += [f"{text}\n{data}" for text, _ in BAD_HEAD] + [f"{head}\ndata: {text}" for text, _ in BAD_DATA]
    # What JSON Schema cannot say: 5.0 is an integer to it, infinity a number, and any text a reference; nor does ours
    # say that one key's least value depends on another.
    passes = ("draws: §5.0", "{memory: §.inf}", "§build", "§pkg.mod:Name", "§loss:f", "{rtol: §.inf}")
    passes += ("method: xtrace, max_matvecs: §5", "max_matvecs: §3, method: hutch++")
    both = BASE.replace("{class_path", "{_target_: a.b, class_path")
    return [both] + [text.replace("§", "") for text in texts if not any(part in text for part in passes)]


@pytest.mark.parametrize("text", _bad())
def test_bad_specs(validator: jsonschema.Draft202012Validator, load: Load, text: str) -> None:
    with pytest.raises(SpecError):
        load(text)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(_plain(text))


def _properties(schema: Any) -> list[tuple[str, Any]]:
    if isinstance(schema, list):
        return [found for item in schema for found in _properties(item)]
    if not isinstance(schema, dict):
        return []
    own = list(schema.get("properties", {}).items()) if isinstance(schema.get("properties"), dict) else []
    return own + [found for item in schema.values() for found in _properties(item)]


def test_every_key_is_described() -> None:
    properties = _properties(json_schema())
    assert {"class_path", "_target_", "sigma", "batch_size", "weight"} <= {name for name, _ in properties}
    assert [name for name, schema in properties if not schema.get("description")] == []
    json.dumps(json_schema(), allow_nan=False)
