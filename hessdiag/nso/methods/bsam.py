"""Bayesian SAM: an ascent and a step that are scaled by an estimate of the weights' precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from hessdiag.errors import UsageError
from hessdiag.nso.methods.displaced import Closure, DisplacedOptimizer, refuse_below
from hessdiag.nso.noise import check_noise

__all__ = ["BSAM"]


class BSAM(DisplacedOptimizer):
    """Bayesian SAM, with a precision s and a momentum m for each weight.

    n ~ N(0, 1) / sqrt(N s), g = grad at w + n, g' = grad at w + rho g / s,
    m = b1 m + (1 - b1) (g' + d w), w = w - lr m / s, s = b2 s + (1 - b2) (sqrt(s) |g| + damping + d).

    w moves with the old s. It has no base optimizer: the step is its own.

    Args:
        params: as of any torch optimizer; groups may have ``lr``, ``rho`` and ``prior`` (d) of their own.
        lr: learning rate.
        num_examples: N, of the training data.
        rho: of the ascent; no radius in the weights' norm.
        weight_decay: d, the prior's precision over N.
        betas: b1 and b2.
        damping: added to s.
        precision: s at the start.
        seed: of the noise.
        model: whose BatchNorm statistics are kept from both passes; one more forward pass brings them up to date.
        scaler: see :class:`DisplacedOptimizer`.

    Cost: 2 gradients a step. The loss that a step returns is the one at w + n.

    Raises:
        UsageError: settings out of range.

    Source: arXiv 2210.01620, Algorithm 1.
    """

    gradients_per_step = 2

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        num_examples: int,
        rho: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        damping: float = 0.1,
        precision: float = 1.0,
        seed: int = 0,
        model: nn.Module | None = None,
        scaler: GradScaler | None = None,
    ) -> None:
        refuse_below(0, rho=rho, weight_decay=weight_decay, damping=damping)
        refuse_below(1, num_examples=num_examples)
        if not precision > 0:
            raise UsageError(f"precision: found {precision}, expected a positive number")
        if not all(0 <= beta < 1 for beta in betas):
            raise UsageError(f"betas: found {betas}, expected numbers from 0 to below 1")
        check_noise(seed, "gaussian")
        # The prior's precision goes by a name that plain SGD, which takes the step, does not know as its own decay.
        own = {"rho": rho, "prior": weight_decay}
        super().__init__(params, torch.optim.SGD, own, model=model, scaler=scaler, lr=lr)
        self.num_examples, self.betas, self.seed = num_examples, betas, seed
        self.damping, self.precision = damping, precision

    def _direct(self, closure: Closure) -> Any:
        parameters, rhos = self.parameters, self.setting("rho")
        precisions = [self._state(p, "precision", self.precision) for p in parameters]
        noise = self._noise_of(self.seed).draw(self.steps, 0, [1.0] * len(parameters))
        self._displace([u / (self.num_examples * s).sqrt() for u, s in zip(noise, precisions, strict=True)])
        loss = self._evaluate(closure, remember=True)
        first = [g / self.loss_scale for g in self.gradients]
        if not all(bool(g.isfinite().all()) for g in first):
            return loss  # and the gradient stands, for the scaler to see
        self._displace([rho * g / s for rho, g, s in zip(rhos, first, precisions, strict=True)])
        self._evaluate(closure)
        second = [g / self.loss_scale for g in self.gradients]
        self._put_back()
        self._statistics.update()
        if self._scaler is None or all(bool(g.isfinite().all()) for g in second):
            self._move(first, second)
        return loss

    def _move(self, first: list[Tensor], second: list[Tensor]) -> None:
        """Update m and s, and leave m / s with the old s as the direction."""
        b1, b2 = self.betas
        for p, g, ascended, prior in zip(self.parameters, first, second, self.setting("prior"), strict=True):
            m, s = self._state(p, "momentum", 0.0), self._state(p, "precision", self.precision)
            m.mul_(b1).add_(ascended + prior * p, alpha=1 - b1)
            p.grad = (m / s).mul_(self.loss_scale)
            curvature = s.sqrt() * g.abs() + self.damping + prior
            s.mul_(b2).add_(curvature, alpha=1 - b2)

    def _state(self, p: Tensor, name: str, start: float) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.full_like(p, start, memory_format=torch.preserve_format)
        value: Tensor = state[name]
        return value
