"""A whole spec that is measured in an instant: 43 weights, 30 examples in three batches, the last one smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hessdiag.loading import load_problem
from hessdiag.problem import Problem
from hessdiag.spec import load_spec

PARAMETERS = 43
EXAMPLES = 30

MODEL = """\
from torch import nn


def build(hidden=5, outputs=3):
    return nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
"""

SPEC = """\
model:
  class_path: model.py:build
  checkpoint: weights.safetensors
data:
  format: npz
  path: data.npz
  inputs: x
  targets: y
  batch_size: 12
audit:
  eigenvalues: {top: 2, bottom: 1}
  trace: {rtol: 0.5, max_matvecs: 32}
  gap: {sigma: [0.01, 0.02], draws: 4}
"""


def network(hidden: int = 5) -> nn.Sequential:
    """What ``MODEL`` builds, with weights of its own generator."""
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return model


def weights(hidden: int = 5) -> dict[str, Tensor]:
    return dict(network(hidden).state_dict())


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(EXAMPLES, 4)).astype(np.float32)
    return {"x": x, "y": random.integers(0, 3, EXAMPLES)}


def write(folder: Path, **changed: Any) -> Path:
    """The spec with its files; ``changed`` replaces arrays of the data, None takes one away."""
    (folder / "model.py").write_text(MODEL)
    save_file(weights(), folder / "weights.safetensors")
    data = {name: array for name, array in {**arrays(), **changed}.items() if array is not None}
    np.savez(folder / "data.npz", **data)
    spec = folder / "audit.yaml"
    spec.write_text(SPEC)
    return spec


def batches(size: int = 12) -> list[tuple[Tensor, Tensor]]:
    x, y = (torch.from_numpy(array) for array in arrays().values())
    return list(zip(x.split(size), y.split(size), strict=True))


def load(spec: Path, *overrides: str, **options: Any) -> Problem:
    return load_problem(load_spec(spec, overrides), **options)


def without_costs(document: Any) -> Any:
    """A report document without its costs: what is shared with others of the same run costs less."""
    if isinstance(document, dict):
        return {key: without_costs(value) for key, value in document.items() if key != "cost"}
    if isinstance(document, list):
        return [without_costs(value) for value in document]
    return document


def without_times(document: Any) -> Any:
    """A report document without its seconds."""
    if isinstance(document, dict):
        return {key: without_times(value) for key, value in document.items() if key != "seconds"}
    if isinstance(document, list):
        return [without_times(value) for value in document]
    return document
