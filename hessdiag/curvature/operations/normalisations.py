"""Normalisations: BatchNorm with given statistics is an affine map; LayerNorm's second derivative in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.operations.apply import apply

__all__ = ["batch_norm", "layer_norm"]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """As ``F.batch_norm`` with given statistics: x scale + shift, scale = weight / sqrt(running_var + eps)."""
    if training or running_mean is None or running_var is None:
        return None
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    channels = (-1, *[1] * (input.ndim - 2))
    return torch.addcmul(shift.view(channels), input, scale.view(channels))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """As ``F.layer_norm``."""
    width = tuple(normalized_shape)
    if weight is None or input.shape[-len(width) :] != width:
        return None
    rows = input.reshape(-1, weight.numel())
    result: Tensor = apply(_LayerNorm, rows, weight.reshape(-1), eps)
    result = result if bias is None else result + bias.reshape(-1)
    return result.view(input.shape)


class _LayerNorm(torch.autograd.Function):
    """h w with h = (x - mean) rstd in each row; x (rows, d), w (d,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, eps: float) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, w.shape, w, None, eps)
        ctx.save_for_backward(x, w, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, w, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *apply(_LayerNormGradient, g, x, w, mean, rstd), None
        return *_backward(g, x, mean, rstd, w, ctx.needs_input_grad[1]), None


class _LayerNormGradient(torch.autograd.Function):
    """(N[g w], sum over rows of g h), N = rstd (1 - mean - h mean h) in each row, the derivative of h by x.

    Backward with (v, u), and n = N[v]: to g, n w + h u; to w, the sum over rows of g n; to x, N[g u] and the
    derivative of N[g w] along v, -rstd (mean(h v) N[g w] + mean(h g w) n + mean(n g w) h).
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor | None]:
        n, to_w = _backward(g, x, mean, rstd, w, w.requires_grad)
        h, gw = (x - mean).mul_(rstd), g * w
        ctx.save_for_backward(g, x, w, mean, rstd, h, n, gw, (h * gw).mean(1, keepdim=True))
        ctx.set_materialize_grads(False)
        return n, to_w

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor | None, u: Tensor | None) -> tuple[Any, ...]:
        g, x, w, mean, rstd, h, ngw, gw, mean_hgw = ctx.saved_tensors
        to_g, to_x, to_w = torch.zeros_like(g), None, None
        if v is not None:
            n, _ = _backward(v, x, mean, rstd, None, False)
            to_g, to_w = n * w, (g * n).sum(0)
            to_x = ngw * (h * v).mean(1, keepdim=True)
            to_x.addcmul_(n, mean_hgw).addcmul_(h, (n * gw).mean(1, keepdim=True)).mul_(-rstd)
        if u is not None:
            to_g.addcmul_(h, u)
            bent, _ = _backward(g, x, mean, rstd, u, False)
            to_x = bent if to_x is None else to_x.add_(bent)
        return to_g, to_x, to_w, None, None


def _backward(
    g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, w: Tensor | None, to_w: bool
) -> tuple[Tensor, Tensor | None]:
    """N[g w] and the sum over rows of g h, by torch's kernel."""
    wanted = [True, to_w, False]
    n, sums, _ = torch.ops.aten.native_layer_norm_backward(g, x, x.shape[1:], mean, rstd, w, None, wanted)
    return n, sums if to_w else None
