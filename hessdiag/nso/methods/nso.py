"""Noise stability optimization: the mean gradient at w + U and w - U."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from hessdiag.errors import UsageError
from hessdiag.nso.methods.displaced import Closure, DisplacedOptimizer, refuse_below
from hessdiag.nso.noise import check_noise

__all__ = ["NSO", "WPSGD"]


class _Noisy(DisplacedOptimizer):
    """The mean of gradients at w + s U_j, over ``num_perturbations`` draws U_j and the signs s."""

    _signs: tuple[float, ...]

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = torch.optim.SGD,
        *,
        sigma: float,
        num_perturbations: int = 1,
        distribution: str = "gaussian",
        seed: int = 0,
        model: nn.Module | None = None,
        clip_norm: float | None = None,
        scaler: GradScaler | None = None,
        **base_options: Any,
    ) -> None:
        refuse_below(0, sigma=sigma)
        if num_perturbations < 1:
            raise UsageError(f"num_perturbations: found {num_perturbations}, expected at least 1")
        check_noise(seed, distribution)
        self.num_perturbations, self.distribution, self.seed = num_perturbations, distribution, seed
        self._sums: list[Tensor] = []
        super().__init__(
            params, base, {"sigma": sigma}, model=model, clip_norm=clip_norm, scaler=scaler, **base_options
        )

    @property
    def gradients_per_step(self) -> int:
        return len(self._signs) * self.num_perturbations

    def _direct(self, closure: Closure) -> Any:
        passes = self.gradients_per_step
        parameters, sigmas = self.parameters, self.setting("sigma")
        draws = self._noise_of(self.seed, self.distribution)
        if passes > 1 and [s.shape for s in self._sums] != [p.shape for p in parameters]:
            self._sums = [torch.empty_like(p) for p in parameters]
        loss, used = 0.0, [False] * len(parameters)
        for number in range(passes):
            draw, sign = divmod(number, len(self._signs))
            if sign == 0:
                noise = draws.draw(self.steps, draw, sigmas)
            self._displace(noise, self._signs[sign])
            loss = loss + self._evaluate(closure, remember=number == 0) / passes
            used = [before or p.grad is not None for before, p in zip(used, parameters, strict=True)]
            if number == 0 and passes > 1:
                torch._foreach_copy_(self._sums, self.gradients)
            elif number < passes - 1:
                torch._foreach_add_(self._sums, self.gradients)
        self._put_back()
        self._statistics.update()
        if passes > 1:
            self._leave_the_mean(used, passes)
        return loss

    def _leave_the_mean(self, used: list[bool], passes: int) -> None:
        parameters = self.parameters
        for p, some in zip(parameters, used, strict=True):
            if some and p.grad is None:
                p.grad = torch.zeros_like(p)
        directions = [p.grad for p, some in zip(parameters, used, strict=True) if some and p.grad is not None]
        others = [total for total, some in zip(self._sums, used, strict=True) if some]
        if passes == 2:
            torch._foreach_lerp_(directions, others, 0.5)  # the mean of two, in one go
        else:
            torch._foreach_add_(directions, others)
            torch._foreach_mul_(directions, 1 / passes)


class NSO(_Noisy):
    """Noise stability optimization: w - lr/(2k) sum_j [g(w + U_j) + g(w - U_j)], g the gradient of one minibatch.

    An unbiased gradient of F(w) = E f(w + U) = f(w) + sigma^2/2 Tr[H] + ...: it descends the loss and the trace of its
    Hessian together. Two points cancel the first order of the noise: on a quadratic the direction is the plain
    gradient for every U, where one point adds the spread H U.

    Args:
        params: as of any torch optimizer; groups may have a ``sigma`` of their own.
        base: class of the optimizer that steps.
        sigma: the noise's standard deviation for each weight.
        num_perturbations: k; 2 gains a little, more than 3 nothing.
        distribution: of the noise, one of :data:`hessdiag.nso.noise.NOISES`.
        seed: of the noise.
        model: whose BatchNorm statistics are kept from the noise; one more forward pass brings them up to date.
        clip_norm, scaler, base_options: see :class:`DisplacedOptimizer`.

    Cost: 2k gradients a step. Memory: three copies of the parameters, for w, U and the sum of gradients.

    Choose it to fine-tune towards flat minima; sigma .008 to .012 in the paper.

    Raises:
        UsageError: sigma below 0, k below 1, an unknown distribution.

    Source: arXiv 2306.08553, Algorithm 1.
    """

    _signs = (1.0, -1.0)


class WPSGD(_Noisy):
    """Weight-perturbed SGD: w - lr/k sum_j g(w + U_j). As :class:`NSO` at k gradients a step, one point for each draw.

    Unbiased for the same F, but with the spread of H U: it is what two points are compared with.

    Source: arXiv 2306.08553, section 2.
    """

    _signs = (1.0,)
