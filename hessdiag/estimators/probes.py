"""Random probe vectors, keyed so that a probe is the same whoever draws it.

Each vector comes from a generator of its own, seeded by (seed, stream, probe, batch of the spec): the
estimate does not change with the chunk, the engine, or the order in which batches are visited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor

from hessdiag.curvature.keyed import keyed_generator
from hessdiag.errors import UsageError

__all__ = ["DISTRIBUTIONS", "Probes", "Stream"]


class Stream(IntEnum):
    """What the probes are for: different streams of one seed are independent."""

    TRACE = 1
    KRYLOV = 2
    POWER = 3
    DENSITY = 4
    GAP = 5
    CROSSCHECK = 6
    SKETCH = 7


class Probes:
    """Vectors of independent entries with mean 0 and standard deviation 1.

    Called as ``probes(probe, batch)``, which makes them a :data:`hessdiag.curvature.operator.Draw`.

    Args:
        n: entries of a vector.
        seed: of the whole measurement.
        stream: what they are for.
        distribution: a key of :data:`DISTRIBUTIONS`.
        device: where they are drawn; on one kind of device they are the same everywhere.
        dtype: of the vectors; drawn in float32 in any case, so that it does not change them.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int,
        stream: Stream,
        distribution: str = "rademacher",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if distribution not in DISTRIBUTIONS:
            raise UsageError(f"distribution: found {distribution!r}, expected one of {', '.join(DISTRIBUTIONS)}")
        if seed < 0:
            raise UsageError(f"seed: found {seed}, expected a whole number of at least 0")
        self.n, self.seed, self.stream, self.dtype = n, seed, stream, dtype
        self.device = torch.device(device)
        self._sample = DISTRIBUTIONS[distribution]

    def __call__(self, probe: int, batch: int | None = None) -> Tensor:
        """Probe number ``probe`` (n,), for one batch of the spec or (None) for all."""
        place = 0 if batch is None else batch + 1
        generator = keyed_generator(self.device, self.seed, int(self.stream), probe, place)
        return self._sample(torch.empty(self.n, device=self.device, dtype=torch.float32), generator).to(self.dtype)


def _rademacher(out: Tensor, generator: torch.Generator) -> Tensor:
    return out.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


def _gaussian(out: Tensor, generator: torch.Generator) -> Tensor:
    return out.normal_(generator=generator)


def _laplace(out: Tensor, generator: torch.Generator) -> Tensor:
    """Scale 1/sqrt 2: an exponential variable with a random sign."""
    size = torch.empty_like(out).exponential_(math.sqrt(2), generator=generator)
    return _rademacher(out, generator).mul_(size)


def _uniform(out: Tensor, generator: torch.Generator) -> Tensor:
    return out.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)


def _binomial(out: Tensor, generator: torch.Generator) -> Tensor:
    """Bin(4, 1/2) - 2."""
    out.fill_(-2)
    for _ in range(4):
        out += torch.empty_like(out).bernoulli_(0.5, generator=generator)
    return out


DISTRIBUTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "binomial": _binomial,
    "gaussian": _gaussian,
    "laplace": _laplace,
    "rademacher": _rademacher,
    "uniform": _uniform,
}
