"""The 95 % interval holds the truth, optional stopping included: 200 seeds on each of many matrices."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from spectra import rotated
from torch import Tensor

from hessdiag.curvature import DenseOperator, dense_hessian
from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.trace import trace
from hessdiag.problem import Problem

SEEDS = 200
FIXTURES = Path(__file__).parents[2] / "fixtures"


class Stored(Probes):
    """The probes of a seed, drawn once for all matrices of one order."""

    def __init__(self, H: SymmetricOperator, seed: int) -> None:
        super().__init__(H.n, seed=seed, stream=Stream.TRACE, dtype=H.dtype)
        self._drawn = _DRAWN.setdefault((H.n, seed), {})

    def __call__(self, probe: int, batch: int | None = None) -> Tensor:
        key = (probe, batch)
        if key not in self._drawn:
            self._drawn[key] = super().__call__(probe, batch)
        return self._drawn[key]


_DRAWN: dict[tuple[int, int], dict[tuple[int, int | None], Tensor]] = {}


def coverage(matrices: list[Tensor], truth: float, rtol: float, maximum: int) -> float:
    H = DenseOperator(matrices)
    options = {"rtol": rtol, "max_matvecs": maximum}
    small = H.n <= 100
    results = [
        trace(H, seed=seed, probes=Stored(H, seed) if small else None, **options)  # type: ignore[arg-type]
        for seed in range(SEEDS)
    ]
    hits = np.mean([result.interval[0] <= truth <= result.interval[1] for result in results])
    probes = np.mean([result.probes for result in results])
    print(f"coverage {hits:.3f} with {probes:.0f} probes at rtol {rtol}")
    return float(hits)


K = torch.arange(1, 61, dtype=torch.float64)

SPECTRA = {
    "flat": 0.5 + K / 60,
    "decaying": 1 / K,
    "indefinite": torch.where(K % 2 == 0, -0.6, 1.0) * (1 + K / 60),
    "an outlier holds half of the trace": torch.cat([torch.full((1,), 59.0), torch.ones(59)]).double(),
    "rank one": torch.eye(60, dtype=torch.float64)[0],
    "a negative outlier": torch.cat([torch.full((1,), -20.0), torch.ones(59)]).double(),
}


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize(("rtol", "maximum"), [(0.5, 2000), (0.3, 100), (0.15, 100)])
@pytest.mark.parametrize("name", SPECTRA)
def test_rotated_spectra(name: str, rtol: float, maximum: int, batches: int) -> None:
    matrices = [rotated(SPECTRA[name] * (1 + index), index) for index in range(batches)]
    truth = float(sum(A.trace() for A in matrices))
    assert coverage(matrices, truth, rtol, maximum) >= 0.92


@cache
def network(name: str) -> tuple[Any, Any]:
    """A fixture's trained model in float64, and some of its data as (inputs, targets)."""
    folder = FIXTURES / name
    spec = importlib.util.spec_from_file_location(f"coverage_{name}", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build, weights = {
        "digits": ("build_mlp", "mlp.safetensors"),
        "cnn": ("build_cnn", "cnn.pt"),
        "gpt": ("build_gpt", "gpt.safetensors"),
    }[name]
    model = getattr(module, build)()
    is_torch = weights.endswith(".pt")
    model.load_state_dict(torch.load(folder / weights, weights_only=True) if is_torch else load_file(folder / weights))
    file, x, y = ("gpt/text.npz", "input_ids", "labels") if name == "gpt" else ("digits/digits.npz", "x", "y")
    with np.load(FIXTURES / file) as arrays:
        return model.double(), (torch.from_numpy(arrays[x]), torch.from_numpy(arrays[y]))


@cache
def batch_hessians(name: str, loss: str, include: tuple[str, ...], per_batch: int) -> list[Tensor]:
    """Each of two batches' share of the whole Hessian, dense, float64."""
    model, (inputs, targets) = network(name)
    halves = [(inputs[rows], targets[rows]) for rows in torch.arange(2 * per_batch).split(per_batch)]
    whole = Problem(model, loss, halves, include=include)
    parts = [Problem(model, loss, [half], include=include) for half in halves]
    return [dense_hessian(part) * (part.weight / whole.weight) for part in parts]


NETWORKS = [
    ("digits", "cross_entropy", ("*",), 100, 0.5),
    ("digits", "cross_entropy", ("fc2*",), 100, 0.2),
    ("cnn", "cross_entropy", ("stem*", "bn.*", "block.bn*", "head*"), 16, 0.5),
    ("cnn", "cross_entropy", ("stem*", "bn.*", "block.bn*", "head*"), 16, 0.2),
    ("gpt", "causal_lm", ("blocks.1.*", "norm*"), 4, 0.2),
]


@pytest.mark.parametrize(("name", "loss", "include", "per_batch", "rtol"), NETWORKS)
def test_trained_networks(name: str, loss: str, include: tuple[str, ...], per_batch: int, rtol: float) -> None:
    hessians = batch_hessians(name, loss, include, per_batch)
    truth = float(sum(A.trace() for A in hessians))
    assert coverage([A.float() for A in hessians], truth, rtol, 100) >= 0.92
