"""What a spec says of a method is what its optimizer takes, with the same defaults."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
import torch

from hessdiag import nso
from hessdiag.nso.noise import NOISES
from hessdiag.spec.names import NoiseDistribution
from hessdiag.spec.train import TrainSpec

OPTIMIZERS = {
    "nso": nso.NSO,
    "wp-sgd": nso.WPSGD,
    "sam": nso.SAM,
    "asam": nso.ASAM,
    "rsam": nso.RSAM,
    "bsam": nso.BSAM,
    "rsp": nso.RSP,
    "sap": nso.SAP,
}
LOOP = {"lr", "model", "seed", "num_examples", "weight_decay", "clip_norm", "scaler"}  # what a training loop supplies
RECEIVED = {"self", "params", "base", "base_options"}
UNUSED = {"random_iterate"}  # the analysis' iterate is no checkpoint


def arguments(optimizer: Any) -> dict[str, Any]:
    """The method's own arguments with their defaults; ASAM hands them on to SAM."""
    home = nso.SAM if optimizer is nso.ASAM else optimizer
    found = inspect.signature(home.__init__).parameters
    return {name: p.default for name, p in found.items() if name not in LOOP | RECEIVED}


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_a_spec_has_all_options_of_a_method_and_no_others(method: str) -> None:
    options, taken = TrainSpec(method=method).method_options(), arguments(OPTIMIZERS[method])
    assert set(options) == set(taken) - UNUSED
    defaults = {
        name: value for name, value in taken.items() if name in options and value is not inspect.Parameter.empty
    }
    assert {name: options[name] for name in defaults} == defaults


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_a_method_steps_with_them(method: str) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    extra = {"num_examples": 10} if method == "bsam" else {}
    optimizer = OPTIMIZERS[method]([("weight", weight)], lr=0.1, **TrainSpec(method=method).method_options(), **extra)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float((weight.detach() ** 2).sum()) < 5


def test_the_distributions_are_those_of_the_noise() -> None:
    assert set(get_args(NoiseDistribution)) == set(NOISES)
