"""One thread and fixed seeds: the same numbers on every machine and in every order of tests."""

from __future__ import annotations

import warnings

import pytest
import torch

torch.set_num_threads(1)

with warnings.catch_warnings():
    # Forward mode loads its rules on first use, by way of a function that torch itself calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
