"""Specs of several formats; what they name is left alone."""

from __future__ import annotations

from pathlib import Path

import tiny
from fuzz_seeds import recipe

SPEC = ("audit.yaml",)


@recipe("specs")
def plain(folder: Path) -> tuple[str, ...]:
    tiny.write(folder)
    return SPEC


@recipe("specs")
def full(folder: Path) -> tuple[str, ...]:
    tiny.write(folder)
    (folder / "audit.yaml").write_text("""\
# every key of a spec
model:
  _target_: model.py:build
  init_args: {hidden: 5, outputs: 3}
  checkpoint: weights.safetensors
  weights: model
data:
  format: npz
  path: "data.npz"
  inputs: [x]
  targets: y
  max_examples: 20
  seed: 7
  batch_size: 12
loss: {name: cross_entropy, ignore_index: -100, label_smoothing: 0.1, weight: [1, 2.0, 3e-1]}
parameters:
  include: ["*"]
  exclude:
    - "2.bias"
audit:
  eigenvalues: &few {top: 2, bottom: 1, method: lanczos, rtol: 1e-3, max_matvecs: 50}
  trace: {method: auto, rtol: 0.05, max_matvecs: 2000}
  gap: {sigma: "0.02:0.03:11", draws: 100, estimator: two-sided, distribution: gaussian}
  density: {steps: 10, probes: 2}
train:
  method: nso
  sigma: 0.01
  schedule: {name: cosine, warmup: 1, floor: 0}
  optimizer: {name: AdamW, betas: [0.9, 0.99]}
  augment: {crop: 4, flip: true}
  early_stopping: 3
  validation: {inputs: [x], max_examples: 5}
  monitor_every: 0
""")
    return SPEC


@recipe("specs")
def table(folder: Path) -> tuple[str, ...]:
    tiny.write(folder)
    rows = "".join(f"{i / 10},{i % 7},{-i},{i % 2},{'abc'[i % 3]}\n" for i in range(20))
    (folder / "data.csv").write_text("f1,f2,f3,f4,label\n" + rows)
    (folder / "audit.yaml").write_text("""\
model: {class_path: model.py:build, checkpoint: weights.safetensors}
data:
  format: csv
  path: data.csv
  inputs: {input: [f1, f2, f3, f4]}
  targets: label
  classes: [a, b, c]
  delimiter: ","
loss: cross_entropy
""")
    return SPEC


@recipe("specs")
def python(folder: Path) -> tuple[str, ...]:
    tiny.write(folder)
    (folder / "data.py").write_text("""\
import numpy as np
import torch


def batches(count=30):
    with np.load("data.npz") as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    return torch.utils.data.TensorDataset(x[:count], y[:count])


def loss(outputs, targets):
    return (outputs.gather(1, targets[:, None]) ** 2).squeeze(1)
""")
    (folder / "audit.yaml").write_text("""\
model:
  class_path: torch.nn.Linear
  init_args: {in_features: 4, out_features: 3}
data: {format: python, path: data.py:batches, init_args: {count: 20}, batch_size: 8}
loss: data.py:loss
""")
    return SPEC


@recipe("specs")
def images(folder: Path) -> tuple[str, ...]:
    from fuzz_seeds_data import imagefolder

    imagefolder(folder)
    return SPEC


@recipe(
    "specs", ways=(("trace", "weights.safetensors", "--model", "model.py:build", "--data", "data.yaml", "--quiet"),)
)
def data_file(folder: Path) -> tuple[str, ...]:
    """What ``--data`` names."""
    tiny.write(folder)
    (folder / "audit.yaml").unlink()
    (folder / "data.yaml").write_text("format: npz\npath: data.npz\ninputs: x\ntargets: y\nbatch_size: 12\n")
    return ("data.yaml",)
