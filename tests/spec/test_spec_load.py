from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from spec_texts import BASE, Faults, Load

from hessdiag.errors import SpecError
from hessdiag.spec import load_spec
from hessdiag.spec.schema import EigenvaluesSpec, GapSpec, TraceSpec

CONTRACT = """\
model:
  class_path: model.py:build_mlp
  init_args: {hidden: 128}
  checkpoint: mlp.safetensors
data:
  format: npz
  path: digits.npz
  inputs: x
  targets: y
  max_examples: 1000
  seed: 0
  batch_size: 256
loss: cross_entropy
parameters: {include: ["*"], exclude: []}
audit:
  eigenvalues: {top: 5, bottom: 1, method: lanczos, rtol: 1.0e-3}
  trace: {method: auto, rtol: 0.05, max_matvecs: 2000}
  gap: {sigma: "0.02:0.03:11", draws: 100, estimator: two-sided}
"""


def test_the_contracts_example(load: Load, folder: Path) -> None:
    spec = load(CONTRACT)
    assert spec.model.class_path == "model.py:build_mlp"
    assert spec.model.init_args == {"hidden": 128}
    assert spec.data.max_examples == 1000
    assert spec.loss.name == "cross_entropy"
    assert spec.loss.options() == {"ignore_index": -100, "label_smoothing": 0.0, "weight": None}
    assert spec.parameters.include == ("*",)
    assert spec.audit.eigenvalues == EigenvaluesSpec(top=5, bottom=1, method="lanczos", rtol=1e-3, max_matvecs=500)
    assert spec.audit.gap is not None
    assert spec.audit.gap.sigma == (0.02, 0.021, 0.022, 0.023, 0.024, 0.025, 0.026, 0.027, 0.028, 0.029, 0.03)
    assert spec.audit.density is None
    assert spec.folder == folder


def test_defaults(load: Load) -> None:
    spec = load(BASE)
    assert spec.model.init_args == {}
    assert spec.model.checkpoint is None
    assert (spec.data.max_examples, spec.data.seed, spec.data.batch_size) == (None, 0, 256)
    assert spec.loss.name == "cross_entropy"
    assert (spec.parameters.include, spec.parameters.exclude) == (("*",), ())
    assert spec.audit.eigenvalues == EigenvaluesSpec(top=5, bottom=1, method="lanczos", rtol=1e-3, max_matvecs=500)
    assert spec.audit.trace == TraceSpec(method="auto", rtol=0.05, max_matvecs=2000)
    assert spec.audit.gap == GapSpec(
        sigma=(0.008, 0.01, 0.012), draws=100, estimator="two-sided", distribution="gaussian"
    )
    assert spec.audit.density is None


def test_null_skips_a_part_and_leaves_the_others(load: Load) -> None:
    audit = load(BASE + "audit: {gap: null, density: {}}").audit
    assert audit.gap is None
    assert audit.trace == TraceSpec()
    assert audit.density is not None
    assert (audit.density.steps, audit.density.probes, audit.density.points) == (80, 4, 256)


def test_a_spec_is_frozen(load: Load) -> None:
    spec = load(BASE)
    with pytest.raises(ValidationError):
        spec.data.seed = 3  # type: ignore[misc]


def test_names_start_from_the_specs_folder_wherever_one_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "audit.yaml").write_text(BASE)
    monkeypatch.chdir(folder.parent)
    spec = load_spec(Path(folder.name) / "audit.yaml")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert spec.data.path == "digits.npz"  # as written
    assert spec.resolve(spec.data.path) == folder / "digits.npz"
    assert spec.resolve("/a/b") == Path("/a/b")
    assert spec.resolve("~/b") == Path.home() / "b"


@pytest.mark.parametrize(
    ("text", "inputs"),
    [("x", "x"), ("[x, z]", ("x", "z")), ("{ids: x, mapping: z}", {"ids": "x", "mapping": "z"})],
)
def test_inputs(load: Load, text: str, inputs: object) -> None:
    assert load(BASE.replace("inputs: x", f"inputs: {text}")).data.inputs == inputs


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("mse", "mse", {}),
        ("{name: mse}", "mse", {}),
        (
            "{name: cross_entropy, label_smoothing: 0.1, weight: [1, 0.5]}",
            "cross_entropy",
            {"ignore_index": -100, "label_smoothing": 0.1, "weight": (1.0, 0.5)},
        ),
        ("{name: bce_with_logits, pos_weight: [2]}", "bce_with_logits", {"pos_weight": (2.0,)}),
        ("{name: nll, ignore_index: 0}", "nll", {"ignore_index": 0, "weight": None}),
        ("causal_lm", "causal_lm", {"ignore_index": -100, "label_smoothing": 0.0}),
        ("model", "model", {"ignore_index": -100}),
        ("model.py:my_loss", "model.py:my_loss", {}),
        ("{name: 'model.py:Losses.mine'}", "model.py:Losses.mine", {}),
    ],
)
def test_losses(load: Load, text: str, name: str, options: dict[str, object]) -> None:
    loss = load(BASE + f"loss: {text}\n").loss
    assert loss.name == name
    assert loss.options() == options


def test_only_the_models_own_loss_does_without_targets(load: Load, faults: Faults) -> None:
    bare = BASE.replace(", targets: y", "")
    assert load(bare + "loss: model").data.targets is None
    expected = "expected the name of what the loss mse compares outputs with"
    assert faults(bare + "loss: mse") == [(2, 7, f"data.targets: missing; {expected}")]
    null = BASE.replace("targets: y", "targets: null")
    assert faults(null + "loss: mse") == [(2, 59, f"data.targets: found nothing (null); {expected}")]
    inside = BASE.replace("inputs: x, targets: y", "inputs: {x: x, labels: y}")
    expected = "expected the name of the labels here, not among the inputs: the model is given them all the same"
    assert faults(inside + "loss: model") == [(2, 7, f"data.targets: missing; {expected}")]
    # Omitted, the loss is cross_entropy; and a fault elsewhere does not hide this one.
    assert [f[:2] for f in faults(bare + "audit: {gap: {draws: 1}}")] == [(2, 7), (3, 22)]


def test_target_is_another_name_for_class_path(load: Load, faults: Faults) -> None:
    assert load(BASE.replace("class_path", "_target_")).model.class_path == "model.py:build"
    both = BASE.replace("{class_path", "{_target_: a.b, class_path")
    assert faults(both) == [
        (1, 9, "model._target_: found beside class_path, for which it is another name; keep one"),
    ]


def test_all_faults_at_once_by_line(folder: Path) -> None:
    path = folder / "bad.yaml"
    path.write_text("""\
audit:
  eigenvalues: {top: 0, rtol: .nan}
  gap:
    sigma: [0.1, -0.1]
    draws: "100"
data:
  format: npz
  path: digit.npz
  inputs: [x, 3]
  batch_sise: 64
  targets: y
  targets: z
  batch_size: "256"
model:
  checkpoint: mlp.safetensor
  init_args: {hidden: !!python/object:os.system rm}
loss: {name: mse, label_smoothing: 0.1}
paramters: {}
""")
    with pytest.raises(SpecError) as caught:
        load_spec(path, ["audit.trace=3"])
    assert str(caught.value).replace(str(folder), "DIR").splitlines() == [
        "DIR/bad.yaml:2:22: audit.eigenvalues.top: found 0, expected a whole number of at least 1",
        "DIR/bad.yaml:2:31: audit.eigenvalues.rtol: found .nan, expected a finite number greater than 0",
        "DIR/bad.yaml:4:18: audit.gap.sigma[1]: found -0.1, expected a finite number greater than 0",
        "DIR/bad.yaml:5:12: audit.gap.draws: found '100' (text), expected a whole number of at least 2; "
        "remove the quotes",
        "DIR/bad.yaml:8:9: data.path: no such file: 'digit.npz' (looked in DIR)",
        "DIR/bad.yaml:9:15: data.inputs[1]: found 3, expected text; write it in quotes",
        "DIR/bad.yaml:10:3: data.batch_sise: unknown key; did you mean batch_size?",
        "DIR/bad.yaml:12:3: data.targets: duplicate key: given twice, on line 11 and line 12; keep one of them",
        "DIR/bad.yaml:13:15: data.batch_size: found '256' (text), expected a whole number of at least 1; "
        "remove the quotes",
        "DIR/bad.yaml:15:15: model.checkpoint: no such file: 'mlp.safetensor' (looked in DIR)",
        "DIR/bad.yaml:16:23: model.init_args.hidden: unknown tag !!python/object:os.system; "
        "expected a plain value, because a spec holds no objects",
        "DIR/bad.yaml:17:19: loss.label_smoothing: unknown key; expected one of: name",
        "DIR/bad.yaml:18:1: paramters: unknown key; did you mean parameters?",
        "--set audit.trace=3: audit.trace: found 3, expected a mapping",
    ]
