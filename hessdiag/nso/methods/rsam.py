"""Randomized SAM: an ascent along the gradient at noisy weights, and along the noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from hessdiag.nso.methods.displaced import Closure, DisplacedOptimizer, refuse_below
from hessdiag.nso.methods.vectors import filter_norms, of_length
from hessdiag.nso.noise import check_noise

__all__ = ["RSAM"]


class RSAM(DisplacedOptimizer):
    """Randomized SAM: w - lr g(w + e), e = rho h / ||h||, h = lam g(w + D) + D, D = sigma ||w_filter|| N(0, I).

    A filter is one output unit's weights; a tensor of one dimension is scaled by its whole norm. The ascent starts
    from w, not from the noisy weights.

    Args:
        params: as of any torch optimizer; groups may have ``rho`` and ``sigma`` of their own.
        base: class of the optimizer that steps.
        rho: length of the ascent.
        sigma: of the noise, relative to a filter's norm; .008 to .012 in the paper.
        lam: weight of the gradient beside the noise.
        seed: of the noise.
        model: whose BatchNorm statistics are kept from both passes; one more forward pass brings them up to date.
        clip_norm, scaler, base_options: see :class:`DisplacedOptimizer`.

    Cost: 2 gradients a step. The loss that a step returns is the one at w + D.

    Raises:
        UsageError: rho or sigma below 0, a seed below 0.

    Source: Liu et al., Random sharpness-aware minimization, NeurIPS 2022.
    """

    gradients_per_step = 2

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = torch.optim.SGD,
        *,
        rho: float,
        sigma: float = 0.01,
        lam: float = 2.0,
        seed: int = 0,
        model: nn.Module | None = None,
        clip_norm: float | None = None,
        scaler: GradScaler | None = None,
        **base_options: Any,
    ) -> None:
        refuse_below(0, rho=rho, sigma=sigma)
        check_noise(seed, "gaussian")
        own = {"rho": rho, "sigma": sigma}
        super().__init__(params, base, own, model=model, clip_norm=clip_norm, scaler=scaler, **base_options)
        self.lam, self.seed = lam, seed

    def _direct(self, closure: Closure) -> Any:
        parameters = self.parameters
        noise = self._noise_of(self.seed).draw(self.steps, 0, self.setting("sigma"))
        displacement = [filter_norms(p) * u for p, u in zip(parameters, noise, strict=True)]
        self._displace(displacement)
        loss = self._evaluate(closure, remember=True)
        weight = self.lam / self.loss_scale
        h = [weight * g + d for g, d in zip(self.gradients, displacement, strict=True)]
        ascent = of_length(h, self.setting("rho"))
        self._put_back()
        self._statistics.update()
        if ascent is not None:
            self._displace(ascent)
            self._evaluate(closure)
        return loss
