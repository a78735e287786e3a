"""Traces and gradients that are known on paper."""

from __future__ import annotations

import torch
from torch import Tensor

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
