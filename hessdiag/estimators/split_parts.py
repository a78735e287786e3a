"""The parts of a trace that are estimated one beside the other: what was sampled of each, and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Draw, Forms, GaussNewtonSums, OutputDraws, Part, QuadraticForms
from hessdiag.estimators.allocation import Sampled, degrees_together

__all__ = ["GaussNewtonTrace", "PooledForms"]


class GaussNewtonTrace:
    """Tr[G] from draws of directions of the outputs, or exactly from all of them.

    The draws of one request give the spread of each example's samples, so rounds of draws are pooled by their
    degrees of freedom.
    """

    def __init__(self, groups: int, seed: int) -> None:
        self._seed = seed
        self._sums = np.zeros(groups)
        self._squares = np.zeros(groups + 1)  # degrees * variance of one draw, by group and of the whole
        self._rounds, self._degrees = 0, 0.0
        self.taken, self.passes, self.exact = 0, 0, False

    def more(self, count: int, *, vital: bool = False, expect: float = 0.0) -> OutputDraws:
        """Ask for ``count`` >= 2 more draws."""
        return OutputDraws(self._seed, range(self.taken, self.taken + count), vital=vital, expect=expect)

    def exactly(self, columns: int, *, vital: bool = False, expect: float = 0.0) -> OutputDraws:
        """Ask for all ``columns`` directions, in place of any draws."""
        return OutputDraws(self._seed, range(columns), exact=True, vital=vital, expect=expect)

    def take(self, answer: GaussNewtonSums, *, passes: int | None = None, exact: bool = False) -> None:
        """Add what was answered; ``passes`` where it is not one for each draw."""
        sums, variance = answer.sums.numpy(), answer.variance.numpy()
        self.passes += len(sums) if passes is None else passes
        if exact:
            self._sums, self._squares = sums[0], np.zeros_like(self._squares)
            self.taken, self._rounds, self._degrees, self.exact = 1, 0, math.inf, True
            return
        self._sums = self._sums + sums.sum(0)
        self._squares = self._squares + (len(sums) - 1) * len(sums) * variance
        self._rounds += 1
        self._degrees += answer.degrees
        self.taken += len(sums)

    @property
    def sampled(self) -> Sampled:
        """For planning: a draw takes a gradient."""
        return Sampled(float(self._unit_variances[-1]), self._degrees, self.taken, cost=1.0)

    @property
    def group_values(self) -> np.ndarray:
        values: np.ndarray = self._sums / self.taken
        return values

    @property
    def value(self) -> float:
        return float(self.group_values.sum())

    @property
    def _unit_variances(self) -> np.ndarray:
        return self._squares / max(self.taken - self._rounds, 1)

    @property
    def variance(self) -> float:
        """Of the value."""
        return float(self._unit_variances[-1]) / self.taken

    @property
    def group_variances(self) -> np.ndarray:
        return self._unit_variances[:-1] / self.taken


class PooledForms:
    """Tr of the diagonal blocks of some tensors, from quadratic forms with probes that live on these tensors alone.

    Every minibatch has a fresh probe, so the forms of different batches are independent and the variance of the
    mean over n probes is sum_b s_b^2 / n, with s_b^2 the sample variance of batch b's forms: few probes give many
    degrees of freedom where there are many batches.

    Args:
        H: the operator.
        draw: Rademacher probes.
        tensors: numbers of the parameter tensors.
        part: of H that is meant.
        first: number of the first probe.
    """

    def __init__(
        self, H: SymmetricOperator, draw: Draw, tensors: Sequence[int], *, part: Part = "residual", first: int = 0
    ) -> None:
        self.tensors, self._part, self._first = tuple(tensors), part, first
        self._draw = draw if len(self.tensors) == len(H.groups) else _on_tensors(H, draw, self.tensors)
        self._forms = np.zeros((0, len(H.groups)))
        self._totals = np.zeros((0, 1))

    def more(self, count: int, *, vital: bool = False, expect: float = 0.0) -> QuadraticForms:
        """Ask for ``count`` more probes."""
        start = self._first + self.taken
        return QuadraticForms(self._draw, range(start, start + count), part=self._part, vital=vital, expect=expect)

    def take(self, answer: Forms) -> None:
        """Add what was answered."""
        self._forms = np.concatenate([self._forms, answer.sums.numpy()])
        totals = answer.batch_totals.numpy()
        self._totals = np.concatenate([self._totals, totals]) if len(self._totals) else totals

    @property
    def taken(self) -> int:
        return len(self._forms)

    @property
    def group_values(self) -> np.ndarray:
        """Zero for the tensors that no probe lives on."""
        values: np.ndarray = self._forms.mean(0)
        return values

    @property
    def value(self) -> float:
        return float(self.group_values.sum())

    @property
    def sampled(self) -> Sampled:
        """For planning: a probe takes a product, which takes two to three gradients."""
        by_batch = self._totals.var(0, ddof=1)
        degrees = degrees_together(by_batch, np.full(len(by_batch), self.taken - 1.0))
        return Sampled(float(by_batch.sum()), degrees, self.taken, cost=2.5)

    @property
    def variance(self) -> float:
        """Of the value."""
        return self.sampled.variance / self.taken

    @property
    def group_variances(self) -> np.ndarray:
        variances: np.ndarray = self._forms.var(0, ddof=1) / self.taken
        return variances


def _on_tensors(H: SymmetricOperator, draw: Draw, tensors: Sequence[int]) -> Draw:
    sizes = torch.tensor([group.size for group in H.groups], device="cpu")
    chosen = torch.zeros(len(sizes), dtype=torch.bool, device="cpu")
    chosen[list(tensors)] = True
    inside = torch.repeat_interleave(chosen, sizes)

    def restricted(probe: int, batch: int | None) -> Tensor:
        v = draw(probe, batch)
        return v * inside.to(v.device)

    return restricted
