"""Traces and gradients that are known on paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oracles.models import Factored, TwoLayerReLU


@torch.no_grad()
def two_layer_relu_trace(model: TwoLayerReLU, x: Tensor) -> Tensor:
    """Tr H of softmax cross-entropy on a two-layer rectifier network.

    mean_i [(||h||^2 + 1) sum p (1 - p) + (||x||^2 + 1) sum over active j of w2_j^T (diag p - p p^T) w2_j]
    """
    a = model.fc1(x)
    h = torch.relu(a)
    p = model.fc2(h).softmax(1)
    W2 = model.fc2.weight
    outer = (h.square().sum(1) + 1) * (p * (1 - p)).sum(1)
    curvature = torch.einsum("ic,cj->ij", p, W2**2) - (p @ W2) ** 2
    inner = (x.square().sum(1) + 1) * (curvature * (a > 0)).sum(1)
    return (outer + inner).mean()


@torch.no_grad()
def matrix_sensing_trace(model: Factored, A: Tensor, y: Tensor) -> Tensor:
    """Tr H of (1/2n) sum_i (<A_i, W W^T> - y_i)^2: (1/n) sum_i [||(A_i + A_i^T) W||_F^2 + 2 k r_i Tr A_i]."""
    W = model.W
    residual = model(A) - y
    directions = (A + A.transpose(1, 2)) @ W
    traces = A.diagonal(dim1=1, dim2=2).sum(1)
    return (directions.square().sum((1, 2)) + 2 * W.shape[1] * residual * traces).mean()


@torch.no_grad()
def matrix_sensing_largest_at_interpolation(model: Factored, A: Tensor) -> Tensor:
    """lambda_1 where every residual is zero: sigma_max([vec((A_i + A_i^T) W)]_i)^2 / n."""
    directions = (A + A.transpose(1, 2)) @ model.W
    return torch.linalg.matrix_norm(directions.flatten(1), 2) ** 2 / len(A)


@torch.no_grad()
def two_layer_kink_gain(fc1: nn.Linear, fc2: nn.Linear, x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """What a two-layer rectifier network with cross-entropy gains from noise beyond sigma^2/2 Tr[H], by its kinks.

    mean_i sum_j e_j [s phi(a_j/s) - |a_j| Phi(-|a_j|/s)], s = sigma ||(x, 1)||, e = W2^T (p - y): to first order in
    what comes out of each rectifier, whose E relu(a + s z) - relu(a) this bracket is.
    """
    a = fc1(x)
    p = fc2(torch.relu(a)).softmax(1)
    e = (p - torch.nn.functional.one_hot(y, p.shape[1])) @ fc2.weight
    s = sigma * (x.square().sum(1, keepdim=True) + 1).sqrt()
    normal = torch.distributions.Normal(torch.zeros((), dtype=a.dtype), torch.ones((), dtype=a.dtype))
    bracket = s * normal.log_prob(a / s).exp() - a.abs() * normal.cdf(-a.abs() / s)
    return (e * bracket).sum(1).mean()
