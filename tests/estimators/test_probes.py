"""Probe vectors: their moments, and that a key decides every entry."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hessdiag.errors import UsageError
from hessdiag.estimators.probes import DISTRIBUTIONS, Probes, Stream

KURTOSIS = {"gaussian": 3.0, "laplace": 6.0, "uniform": 1.8, "binomial": 2.5, "rademacher": 1.0}
EIGHTH = {"gaussian": 105.0, "laplace": 2520.0, "uniform": 9.0, "binomial": 32.5, "rademacher": 1.0}


def drawn(distribution: str, **key: int) -> Tensor:
    probes = Probes(
        key.pop("n", 400_000), seed=key.pop("seed", 0), stream=Stream(key.pop("stream", 1)), distribution=distribution
    )
    return probes(key.pop("probe", 0), key.pop("batch", None))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_moments(distribution: str) -> None:
    v = drawn(distribution).double()
    root = math.sqrt(len(v))
    kurtosis, eighth = KURTOSIS[distribution], EIGHTH[distribution]
    assert abs(float(v.mean())) < 4 / root
    assert abs(float((v**2).mean()) - 1) <= 4 * math.sqrt(kurtosis - 1) / root
    assert abs(float((v**4).mean()) - kurtosis) <= 4 * math.sqrt(max(eighth - kurtosis**2, 0)) / root


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_entries_are_independent(distribution: str) -> None:
    v = drawn(distribution).double()
    for lag in (1, 2, 7):
        assert abs(float((v[lag:] * v[:-lag]).mean())) < 4 / math.sqrt(len(v))


def test_supports() -> None:
    assert set(drawn("rademacher").tolist()) == {-1.0, 1.0}
    assert set(drawn("binomial").tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert float(drawn("uniform").abs().max()) <= math.sqrt(3) * (1 + 1e-6)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_key_decides_every_entry(distribution: str) -> None:
    first = drawn(distribution, n=1000)
    assert torch.equal(first, drawn(distribution, n=1000))
    for other in ({"seed": 1}, {"stream": 2}, {"probe": 1}, {"batch": 0}, {"batch": 1}, {"seed": 2**70}):
        v = drawn(distribution, n=1000, **other)
        assert abs(float((v * first).mean())) < 4 / math.sqrt(1000)
        assert not torch.equal(v, first)


def test_no_two_keys_collide() -> None:
    seen = {
        tuple(drawn("gaussian", n=4, seed=seed, stream=stream, probe=probe, batch=batch).tolist())
        for seed in range(4)
        for stream in (1, 2, 3)
        for probe in range(8)
        for batch in range(4)
    }
    assert len(seen) == 4 * 3 * 8 * 4


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_dtype_does_not_change_the_draw(distribution: str) -> None:
    options = {"seed": 5, "stream": Stream.GAP, "distribution": distribution}
    single, double = (Probes(500, dtype=dtype, **options)(3, 1) for dtype in (torch.float32, torch.float64))  # type: ignore[arg-type]
    assert single.dtype is torch.float32
    assert torch.equal(single.double(), double)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    drawn("laplace", n=100)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_distribution() -> None:
    with pytest.raises(UsageError, match="'cauchy', expected one of binomial, gaussian"):
        drawn("cauchy")


def test_the_global_default_dtype_does_not_change_them() -> None:
    expected = Probes(600, seed=1, stream=Stream.GAP, distribution="gaussian")(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Probes(600, seed=1, stream=Stream.GAP, distribution="gaussian")(0), expected)
    finally:
        torch.set_default_dtype(before)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="found -1, expected a whole number of at least 0"):
        Probes(3, seed=-1, stream=Stream.GAP)
