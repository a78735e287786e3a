"""The networks whose Hessians are looked into: the fixtures, and two that are trained here, also at initialisation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import hessdiag
from hessdiag import Problem

FIXTURES = Path(hessdiag.__file__).resolve().parents[1] / "fixtures"

# So many examples that the dense Hessian of the convolutional network and the transformer takes a minute.
_SUBSETS = {
    "digits": [],
    "cnn": ["data.max_examples=240", "data.batch_size=40"],
    "gpt": ["data.max_examples=40", "data.batch_size=8"],
}
_BUILDERS = {"digits": "build_mlp", "cnn": "build_cnn", "gpt": "build_gpt"}
_SEED = 20  # of the initialisations; nothing was chosen by it


def fixture(name: str, *, trained: bool = True, whole: bool = False) -> Problem:
    """A fixture's problem, trained or with fresh weights, on a subset of its data or the whole."""
    folder = FIXTURES / name
    problem = hessdiag.load(folder / "audit.yaml", overrides=[] if whole else _SUBSETS[name])
    if not trained:
        _reinitialise(problem, folder / "model.py", _BUILDERS[name])
    return problem


def _reinitialise(problem: Problem, source: Path, builder: str) -> None:
    spec = importlib.util.spec_from_file_location(f"fixture_{source.parent.name}", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(_SEED)
    problem.model.load_state_dict(getattr(module, builder)().state_dict())


def gelu() -> Problem:
    """64-32-10, GELU, cross-entropy on the digits, trained here."""
    return _trained_here(nn.GELU(), "cross_entropy")


def tanh() -> Problem:
    """64-32-10, tanh, mean squared error against one-hot digits, trained here."""
    return _trained_here(nn.Tanh(), "mse")


def tiny() -> Problem:
    """64-1-10 on 24 digits, untrained: torch.optim takes seconds to load."""
    return _trained_here(nn.GELU(), "cross_entropy", hidden=1, examples=24, batch=12, epochs=0)


def _trained_here(
    activation: nn.Module, loss: str, *, hidden: int = 32, examples: int = 1437, batch: int = 256, epochs: int = 150
) -> Problem:
    arrays = np.load(FIXTURES / "digits" / "digits.npz")
    x, y = torch.from_numpy(arrays["x"][:examples]), torch.from_numpy(arrays["y"][:examples])
    if loss == "mse":
        y = nn.functional.one_hot(y, 10).float()
    torch.manual_seed(_SEED)
    model = nn.Sequential(nn.Linear(64, hidden), activation, nn.Linear(hidden, 10))
    if epochs:
        _train(model, x, y, nn.functional.mse_loss if loss == "mse" else nn.functional.cross_entropy, epochs)
    return Problem(model, loss, list(zip(x.split(batch), y.split(batch), strict=True)))


def _train(model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], epochs: int) -> None:
    """Adam, the learning rate falling to zero."""
    steps = epochs * -(-len(x) // 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()


TRAINED: dict[str, Callable[[], Problem]] = {
    "digits": lambda: fixture("digits"),
    "cnn": lambda: fixture("cnn"),
    "gpt": lambda: fixture("gpt"),
    "gelu": gelu,
    "tanh": tanh,
}
TINY = "tiny"  # for trying the code
UNTRAINED: dict[str, Callable[[], Problem]] = {
    f"{name} at initialisation": (lambda name=name: fixture(name, trained=False)) for name in _SUBSETS
}
ABOUT = (
    "Networks of 2,000 to 3,400 weights: the fixtures digits (ReLU), cnn (BatchNorm, ReLU; 240 examples) and gpt (GELU "
    "transformer; 40 texts); gelu and tanh, 64-32-10 on the digits (cross-entropy, mean squared error), trained by the "
    "benchmark. Data in 5 or 6 batches."
)


@cache
def subject(name: str) -> Problem:
    """By name, trained or untrained; made once."""
    return (TRAINED | UNTRAINED | {TINY: tiny})[name]()
