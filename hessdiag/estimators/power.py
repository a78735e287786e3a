"""Power iteration that finds the wanted end of an indefinite spectrum: shifted, and deflated by what is found."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hessdiag.curvature.operator import SymmetricOperator
from hessdiag.curvature.requests import Products
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.estimators.steps import OutOfTime, Steps
from hessdiag.estimators.wanted import Found, Wanted

__all__ = ["power_steps"]

_SURVEY_STEPS = 8


def power_steps(
    H: SymmetricOperator, wanted: Wanted, *, budget: int, seed: int, memory: int | None = None
) -> Steps[Found]:
    """Approximate eigenvectors of both ends by iterating on s(H - cI), s = +1 for the top and -1 for the bottom.

    Plain power iteration converges to the eigenvalue of largest magnitude, or, with two of equal magnitude
    and opposite sign, to none. The shift c, a little beyond the unwanted end, makes the wanted end the
    largest in magnitude. Vectors already found are projected out at every step. The rate is
    (lambda_2 - c) / (lambda_1 - c) a step.

    Args:
        H: the operator, order n.
        wanted: how many from each end; a vector is done at ||Hv - lambda v|| <= rtol times the scale: the largest
            ||Hv|| seen, unit v.
        budget: products allowed in all.
        seed: of the start vectors.
        memory: not looked at: little more is stored than what is found.
    """
    signs = [1] * wanted.top + [-1] * wanted.bottom
    # An inexact vector leaks into all that are kept orthogonal to it: k residuals add up to sqrt(k) of one.
    iteration = _PowerIteration(H, wanted.rtol / math.sqrt(wanted.count), budget, seed)
    shifts = yield from iteration.shifts(min(_SURVEY_STEPS, (budget - wanted.count) // 8))
    for place, sign in enumerate(signs):
        # What is left is shared out, so that a hard vector cannot starve those after it.
        share = (budget - iteration.spent) // (wanted.count - place)
        yield from iteration.find(sign, shifts[sign], share)
    return Found(torch.stack(iteration.found, 1), iteration.spent, iteration.all_converged, iteration.scale)


class _PowerIteration:
    """The vectors found so far and the products spent."""

    def __init__(self, H: SymmetricOperator, rtol: float, budget: int, seed: int) -> None:
        self.H, self.rtol, self.budget = H, rtol, budget
        self.found: list[Tensor] = []
        self.spent = 0
        self.all_converged = True
        self.scale = 0.0
        self._starts = Probes(
            H.n, seed=seed, stream=Stream.POWER, distribution="gaussian", device=H.device, dtype=H.dtype
        )

    def shifts(self, steps: int) -> Steps[dict[int, float]]:
        """A shift for each sign, from a look of 3 ``steps`` at both ends: just beyond the unwanted end, or none."""
        v = self._start(0)
        for _ in range(steps):
            product = yield from self._product(v)
            v = self._unit(product, v)
            self.scale = max(self.scale, float(torch.linalg.vector_norm(product)))
        ends = {}
        for sign in (1, -1):
            v, quotient = self._start(sign), 0.0
            for _ in range(steps):
                product = yield from self._product(v)
                quotient = float(v.double() @ product.double())
                v = self._unit(sign * product + self.scale * v, v)
            ends[sign] = quotient
        return {1: min(1.1 * ends[-1], 0.0), -1: max(1.1 * ends[1], 0.0)}

    def find(self, sign: int, shift: float, allowance: int) -> Steps[None]:
        """Iterate on sign (H - shift I), orthogonal to what is found, and keep the vector."""
        v = self._projected(self._start(2 + len(self.found)))
        v = self._unit(v, v)
        for _ in range(allowance):
            try:
                product = self._projected((yield from self._product(v, vital=False)))
            except OutOfTime:
                self.all_converged = False
                break
            quotient = float(v.double() @ product.double())
            self.scale = max(self.scale, abs(quotient))
            residual = float(torch.linalg.vector_norm(product.double() - quotient * v.double()))
            if residual <= self.rtol * self.scale:
                break
            v = self._unit(self._projected(sign * (product - shift * v)), v)
        else:
            self.all_converged = False
        self.found.append(v)

    def _product(self, v: Tensor, *, vital: bool = True) -> Steps[Tensor]:
        products: Tensor = yield Products(v[:, None], expect=max(self.budget - self.spent - 1, 0), vital=vital)
        self.spent += 1
        return products[:, 0]

    def _start(self, number: int) -> Tensor:
        v = self._starts(number + 1)
        unit: Tensor = v / torch.linalg.vector_norm(v)
        return unit

    def _projected(self, v: Tensor) -> Tensor:
        for _ in range(2):  # once leaves rounding behind
            for other in self.found:
                v = v - other * (other @ v)
        return v

    @staticmethod
    def _unit(v: Tensor, otherwise: Tensor) -> Tensor:
        norm = float(torch.linalg.vector_norm(v))
        return v / norm if norm > 0 else otherwise
