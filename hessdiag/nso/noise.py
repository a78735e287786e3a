"""Weight noise for training: the distributions of the gap's probes, and the one of them that is not centred."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from hessdiag.errors import UsageError
from hessdiag.estimators.probes import DISTRIBUTIONS

__all__ = ["NOISES", "Noise"]

_UNCENTRED = "binomial-uncentered"
NOISES = (*(name for name in DISTRIBUTIONS if name != "rademacher"), _UNCENTRED)
"""Gaussian, Laplace, uniform, binomial (Bin(4, 1/2) - 2), and the uncentred binomial, whose mean is 2 sigma."""


class Noise:
    """U with independent entries of mean 0 and standard deviation sigma, shaped like some tensors.

    A draw is keyed by (seed, step, number), so it is the same after a resumption. ``binomial-uncentered`` has the
    mean 2 sigma instead: a displacement that favours one direction, offered because published code uses it.

    Args:
        like: the tensors, on one device.
        seed: of the run.
        distribution: one of :data:`NOISES`.

    Raises:
        UsageError: another distribution, or a seed below 0.
    """

    def __init__(self, like: Sequence[Tensor], *, seed: int, distribution: str = "gaussian") -> None:
        check_noise(seed, distribution)
        self._seed = seed
        self._shift = 2.0 if distribution == _UNCENTRED else 0.0
        self._sample = DISTRIBUTIONS["binomial" if distribution == _UNCENTRED else distribution]
        self._generator = torch.Generator(like[0].device)
        sizes = [tensor.numel() for tensor in like]
        self._flat = torch.empty(sum(sizes), device=like[0].device)
        self._parts = list(torch.split(self._flat, sizes))
        self._shaped = [part.view(tensor.shape) for part, tensor in zip(self._parts, like, strict=True)]

    def fits(self, like: Sequence[Tensor]) -> bool:
        """Whether draws have the shapes and the place of these tensors."""
        return len(like) == len(self._shaped) and all(
            tensor.shape == own.shape and tensor.device == own.device
            for tensor, own in zip(like, self._shaped, strict=True)
        )

    def draw(self, step: int, number: int, sigmas: Sequence[float]) -> list[Tensor]:
        """Draw ``number`` of a step, each tensor with its own ``sigma``; overwrites the draw before."""
        self._generator.manual_seed(_key(self._seed, step, number))
        self._sample(self._flat, self._generator)
        if self._shift:
            self._flat += self._shift
        if len(set(sigmas)) == 1:
            self._flat *= sigmas[0]
        else:
            torch._foreach_mul_(self._parts, list(sigmas))
        return self._shaped


def _key(*numbers: int) -> int:
    """One whole number of several; numpy's way takes as long as a small network's noise."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest()) >> 1


def check_noise(seed: int, distribution: str) -> None:
    """Refuse what nothing can be drawn from."""
    if distribution not in NOISES:
        raise UsageError(f"distribution: found {distribution!r}, expected one of {', '.join(NOISES)}")
    if seed < 0:
        raise UsageError(f"seed: found {seed}, expected a whole number of at least 0")
