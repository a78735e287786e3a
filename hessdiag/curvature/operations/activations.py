"""Activations y = phi(x): what a second derivative needs of them is computed once, for all vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hessdiag.curvature.operations.apply import apply

__all__ = ["gelu", "silu"]

Derivatives = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> phi'(x), phi''(x)


def gelu(input: Tensor, approximate: str = "none") -> Tensor | None:
    """As ``F.gelu``."""
    derivatives = {"none": _gelu_derivatives, "tanh": _tanh_gelu_derivatives}.get(approximate)
    if derivatives is None:
        return None
    return _activated(input, lambda x: F.gelu(x, approximate=approximate), derivatives)


def silu(input: Tensor, inplace: bool = False) -> Tensor | None:
    """As ``F.silu``; in place it is left to torch."""
    return None if inplace else _activated(input, F.silu, _silu_derivatives)


def _activated(x: Tensor, function: Callable[[Tensor], Tensor], derivatives: Derivatives) -> Tensor:
    result: Tensor = apply(_Activation, x, function, derivatives)
    return result


class _Activation(torch.autograd.Function):
    """phi(x); backward: g phi'(x). Both derivatives at x are computed once, with the graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], derivatives: Derivatives) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivatives, ctx.first = derivatives, None
        return function(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            first = ctx.derivatives(x)[0] if ctx.first is None else ctx.first
            return g * first, None, None
        ctx.first, second = ctx.derivatives(x.detach())
        return apply(_Slope, g, x, ctx.first, second), None, None


class _Slope(torch.autograd.Function):
    """g phi'(x); backward with v: v phi'(x) to g, and v g phi''(x) to x."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second.mul_(g))
        return g * first

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
        first, bent = ctx.saved_tensors
        return v * first, v * bent, None, None


def _gelu_derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
    """X Phi(x), with the normal distribution's Phi and density."""
    density = torch.exp(-0.5 * x * x).mul_(1 / math.sqrt(2 * math.pi))
    distribution = torch.erf(x * math.sqrt(0.5)).add_(1).mul_(0.5)
    return distribution.addcmul_(x, density), density.mul_(2 - x * x)


def _tanh_gelu_derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
    """X (1 + tanh u) / 2, u = sqrt(2/pi) (x + .044715 x^3)."""
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    u1 = scale * (1 + 3 * cubic * square)
    t = torch.tanh(scale * x * (1 + cubic * square))
    bend = 1 - t * t
    first = 0.5 * (1 + t) + 0.5 * x * bend * u1
    return first, bend * (u1 + 3 * scale * cubic * square - x * t * u1 * u1)


def _silu_derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
    """X s, s = 1 / (1 + exp(-x)), s' = s (1 - s)."""
    s = torch.sigmoid(x)
    bend = s * (1 - s)
    return s + x * bend, bend * (2 + x * (1 - 2 * s))
