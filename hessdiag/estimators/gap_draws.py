"""Losses at displaced weights and quadratic forms of the same noise, draw by draw and batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from hessdiag.cost import Cost
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.requests import DisplacedLosses, Draw, Forms, Losses, QuadraticForms, Request
from hessdiag.estimators.steps import Steps
from hessdiag.memory import chunk_size
from hessdiag.results import SigmaSearch

__all__ = ["FEWEST_DRAWS", "SIGNS", "GapDraws", "GapSample", "Pooled", "pooled"]

FEWEST_DRAWS = 2  # that have a standard error
SIGNS = {"two-sided": (1.0, -1.0), "one-sided": (1.0,)}


class Pooled(NamedTuple):
    """The mean of sums over batches, its standard error, and the degrees of freedom of that error."""

    mean: float
    stderr: float
    degrees: float


def pooled(values: np.ndarray) -> Pooled:
    """Mean over draws of the sum over batches of ``values`` (draws, batches), whose columns are independent.

    The variance of a sum of independent columns is the sum of their variances, each from all draws: the same in
    the mean as the variance of the sums, with more degrees of freedom (Satterthwaite 1946).
    """
    draws = len(values)
    spread = values.var(0, ddof=1)
    total = float(spread.sum())
    degrees = (draws - 1) * total**2 / float((spread**2).sum()) if total > 0 else math.inf
    return Pooled(float(values.sum(1).mean()), math.sqrt(total / draws), degrees)


@dataclass(frozen=True)
class GapDraws:
    """What the draws gave, before it is held against a trace.

    With one noise for the whole data there is one column in place of ``batches``.

    Attributes:
        sigmas: noise levels, in units of the weights.
        gaps: (draws, sigmas, batches), what the loss gains, as shares of the mean loss.
        forms: (draws, batches), u^T H u of the same noise in units of sigma; None where H is not exact.
        rounding: of the loss, below which no error of a gap shrinks.
        converged: whether ``rtol`` was met, where it was asked for.
        search: how the sigmas were found, where they were.
    """

    sigmas: tuple[float, ...]
    estimator: str
    distribution: str
    noise: str
    gaps: np.ndarray
    forms: np.ndarray | None
    rounding: float
    converged: bool
    seed: int
    search: SigmaSearch | None = None
    cost: Cost = Cost()

    def remainders(self, place: int) -> np.ndarray | None:
        """(draws, batches): the gaps at sigma number ``place`` without sigma^2/2 u^T H u."""
        if self.forms is None:
            return None
        remainders: np.ndarray = self.gaps[:, place] - self.sigmas[place] ** 2 / 2 * self.forms
        return remainders


class GapSample:
    """A growing sample: any sigmas at any number of draws, each measured once.

    One product for each draw serves every sigma, in the pass over the data that gives its first losses.

    Args:
        H: what serves.
        draw: the noise in units of sigma.
        estimator: ``two-sided`` or ``one-sided``.
        per_batch: fresh noise for each batch, or one for all.
        compile: the model by ``torch.compile`` for the losses.
    """

    def __init__(
        self, H: HessianOperator, draw: Draw, *, estimator: str, per_batch: bool, compile: bool = False
    ) -> None:
        self._H, self._draw, self._signs, self.per_batch = H, draw, SIGNS[estimator], per_batch
        self._compile = compile
        # Differences of gradients step over kinks: not the form that the losses' remainder asks for.
        self.paired = H.engine.relative_error is None
        self.forms = np.zeros((0, H.problem.data_info.batches if per_batch else 1))
        self.loss = 0.0
        self._gaps: dict[float, np.ndarray] = {}

    @property
    def rounding(self) -> float:
        """Of the loss: what no number of draws averages away."""
        return float(torch.finfo(self._H.problem.model_dtype).eps) * abs(self.loss)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Where the loss was finite, from the smallest up."""
        enough = (sigma for sigma, gaps in self._gaps.items() if len(gaps) >= FEWEST_DRAWS)
        return tuple(sorted(sigma for sigma in enough if np.isfinite(self._gaps[sigma]).all()))

    def taken(self, sigmas: Sequence[float]) -> int:
        """How many draws there are at every one of ``sigmas``."""
        counts = [len(self._gaps.get(sigma, ())) for sigma in sigmas]
        return min([*counts, len(self.forms)] if self.paired else counts)

    def gaps(self, sigma: float) -> np.ndarray:
        """All that were taken, (draws, batches)."""
        return self._gaps[sigma]

    def remainders(self, sigma: float) -> np.ndarray:
        """The gaps without sigma^2/2 u^T H u, (draws, batches)."""
        gaps = self._gaps[sigma]
        return gaps - sigma**2 / 2 * self.forms[: len(gaps)]

    def take(self, sigmas: Sequence[float], draws: int, *, expect: int = 0) -> Steps[None]:
        """Measure what is lacking of ``draws`` draws at every one of ``sigmas``; ``expect`` as many more later."""
        while requests := tuple(self._lacking(sigmas, draws, expect)):
            answers = yield requests
            for request, answer in zip(requests, answers, strict=True):
                if isinstance(request, DisplacedLosses):
                    self._add_losses(request, answer)
                else:
                    self._add_forms(answer)

    def _lacking(self, sigmas: Sequence[float], draws: int, expect: int) -> Iterator[Request]:
        vital = not self.sigmas and self.taken(sigmas) < FEWEST_DRAWS
        by_count: dict[int, list[float]] = {}
        for sigma in sigmas:
            by_count.setdefault(len(self._gaps.get(sigma, ())), []).append(sigma)
        for first, levels in by_count.items():
            if first < draws:
                scales = [sign * sigma for sigma in levels for sign in self._signs]
                probes = self._numbers(first, draws)
                later = (draws - probes.stop + expect) * len(scales)
                yield DisplacedLosses(
                    self._draw, probes, scales, self.per_batch, self._compile, expect=later, vital=vital
                )
        if self.paired and len(self.forms) < draws:
            probes = self._numbers(len(self.forms), draws)
            later = draws - probes.stop + expect
            yield QuadraticForms(self._draw, probes, self.per_batch, expect=later, vital=vital)

    def _numbers(self, first: int, draws: int) -> range:
        """The draws of one pass: noise that all batches share is kept in memory until its end."""
        together = draws if self.per_batch else chunk_size(self._H.n * 8, draws, self._H.device)
        return range(first, min(first + together, draws))

    def _add_losses(self, request: DisplacedLosses, losses: Losses) -> None:
        levels = [abs(scale) for scale in request.scales[:: len(self._signs)]]
        gains = losses.displaced - losses.at_weights
        gains = gains.reshape(len(request.probes), len(levels), len(self._signs), -1).mean(2)
        for sigma, more in zip(levels, gains.numpy().swapaxes(0, 1), strict=True):
            before = self._gaps.get(sigma, np.zeros((0, self.forms.shape[1])))
            self._gaps[sigma] = np.concatenate([before, self._columns(more)])
        self.loss = float(losses.at_weights.sum())

    def _add_forms(self, forms: Forms) -> None:
        self.forms = np.concatenate([self.forms, self._columns(forms.batch_totals.numpy())])

    def _columns(self, by_batch: np.ndarray) -> np.ndarray:
        """Only with noise of their own are batches independent."""
        return by_batch if self.per_batch else by_batch.sum(1, keepdims=True)
