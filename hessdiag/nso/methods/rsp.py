"""Random smoothing and sharpness-aware perturbation: steps along the sharpness, orthogonal to the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from hessdiag.curvature.keyed import keyed_generator
from hessdiag.errors import UsageError
from hessdiag.nso.methods.displaced import Closure, DisplacedOptimizer, refuse_below
from hessdiag.nso.methods.vectors import norm, of_length, without
from hessdiag.nso.noise import check_noise

__all__ = ["RSP", "SAP"]

_STREAM = 102  # of signs and of the iterate that is kept; beside the noise's


class RSP(DisplacedOptimizer):
    """Randomly smoothed perturbation: steps that flatten, orthogonal to the gradient G.

    Where ||G|| <= eps0, w - lr (G + v), v = grad f(w + rho u) less its part along G, u uniform on the unit sphere;
    elsewhere w - descent_lr G.

    It is defined on the full gradient: give a closure over all data. With one over a minibatch, G and v are that
    minibatch's: a deviation, to be named as such.

    Args:
        params: as of any torch optimizer.
        base: class of the optimizer that steps.
        lr: learning rate near stationary points.
        rho: length of the displacement.
        eps0: the gradient's norm up to which a point counts as stationary.
        descent_lr: learning rate elsewhere; default: lr.
        random_iterate: keep a uniformly random one of the weights after each step, which the analysis is about:
            :meth:`iterate`. Takes a copy of the parameters.
        seed: of the displacements.
        model: whose BatchNorm statistics are kept from displaced passes.
        clip_norm, scaler, base_options: see :class:`DisplacedOptimizer`.

    Cost: 2 gradients a step, 1 where ||G|| > eps0. The loss that a step returns is the one at w.

    Raises:
        UsageError: settings out of range.

    Source: arXiv 2305.15659, Algorithm 1.
    """

    gradients_per_step = 2

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = torch.optim.SGD,
        *,
        lr: float,
        rho: float,
        eps0: float = float("inf"),
        descent_lr: float | None = None,
        random_iterate: bool = False,
        seed: int = 0,
        model: nn.Module | None = None,
        clip_norm: float | None = None,
        scaler: GradScaler | None = None,
        **base_options: Any,
    ) -> None:
        if not rho > 0:
            raise UsageError(f"rho: found {rho}, expected a positive number")
        refuse_below(0, eps0=eps0)
        check_noise(seed, "gaussian")
        super().__init__(
            params, base, {"rho": rho}, model=model, clip_norm=clip_norm, scaler=scaler, lr=lr, **base_options
        )
        self.eps0, self.seed = eps0, seed
        self._faster = 1.0 if descent_lr is None else descent_lr / lr
        self._keeps_iterate = random_iterate

    def step(self, closure: Closure | None = None) -> Any:
        loss = super().step(closure)
        if self._keeps_iterate and self._uniform(1) < 1 / self.steps:
            for p in self.parameters:
                self.state[p]["iterate"] = p.detach().clone()
        return loss

    def iterate(self) -> list[Tensor]:
        """The random one of the weights so far.

        Raises:
            UsageError: none is kept, or no step was made.
        """
        if not self.steps or not self._keeps_iterate:
            raise UsageError("iterate: found no kept iterate, expected random_iterate=True and a step")
        return [self.state[p]["iterate"] for p in self.parameters]

    def _direct(self, closure: Closure) -> Any:
        loss = self._evaluate(closure, clean=True)
        full = [g.clone() for g in self.gradients]
        length = float(norm(full)) / self.loss_scale
        if length <= self.eps0:
            along = without(self._displaced_gradient(closure), full)
            self._leave([g + v for g, v in zip(full, along, strict=True)])
        else:
            self._leave([self._faster * g for g in full])
        return loss

    def _displaced_gradient(self, closure: Closure) -> list[Tensor]:
        parameters, rhos = self.parameters, self.setting("rho")
        noise = self._noise_of(self.seed).draw(self.steps, 0, [1.0] * len(parameters))
        length = float(norm(noise))
        self._displace([u.to(p.dtype) * (rho / length) for u, p, rho in zip(noise, parameters, rhos, strict=True)])
        self._evaluate(closure)
        return self.gradients

    def _leave(self, direction: list[Tensor]) -> None:
        for p, d in zip(self.parameters, direction, strict=True):
            p.grad = d

    def _uniform(self, number: int) -> float:
        generator = keyed_generator(torch.device("cpu"), self.seed, _STREAM, self.steps, number)
        return float(torch.rand((), generator=generator, dtype=torch.float64, device="cpu"))


class SAP(RSP):
    """Sharpness-aware perturbation: as :class:`RSP` with v from one example i's gradient at w + rho s g_i / ||g_i||.

    g_i is that example's gradient at w and s = +-1 at random; v is again less its part along G. It flattens d times
    faster than RSP on d weights, since g_i points where the loss is sharp.

    :meth:`step` takes a second closure, for one random example; without it, the first: the minibatch's gradient in
    place of an example's, a deviation. One example works best.

    Cost: 3 gradients a step, 1 where ||G|| > eps0.

    Source: arXiv 2305.15659, Algorithm 2.
    """

    gradients_per_step = 3
    _example: Closure | None = None

    def step(self, closure: Closure | None = None, example: Closure | None = None) -> Any:
        """One step; ``example`` is the closure of a random example."""
        self._example = example
        return super().step(closure)

    def _displaced_gradient(self, closure: Closure) -> list[Tensor]:
        example = self._example or closure
        self._evaluate(example)
        sign = 1.0 if self._uniform(0) < 0.5 else -1.0
        ascent = of_length(self.gradients, [sign * rho for rho in self.setting("rho")])
        if ascent is not None:
            self._displace(ascent)
            self._evaluate(example)
        return self.gradients
