"""Networks of a size at which time is spent in torch and not in Python, with random data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def mlp() -> nn.Module:
    """784-256-256-10, GELU."""
    return nn.Sequential(nn.Linear(784, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10))


def cnn(width: int = 32) -> nn.Module:
    """A ResNet of two stages on 32 x 32 images, about 100,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        Residual(2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )


class Transformer(nn.Module):
    """Causal, two layers, width 128, four heads, about 430,000 parameters."""

    def __init__(self, vocab: int = 200, width: int = 128, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocab, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.proj = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        for layer in range(len(self.qkv)):
            mixed = self.qkv[layer](self.norms[2 * layer](h))
            q, k, v = mixed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.proj[layer](mixed.transpose(1, 2).flatten(2))
            h = h + self.down[layer](F.gelu(self.up[layer](self.norms[2 * layer + 1](h))))
        return F.linear(h, self.embed.weight)


def cases() -> dict[str, tuple[nn.Module, str, list[Any]]]:
    """Name -> model, loss, batches."""
    torch.manual_seed(0)
    images = [(torch.randn(32, 3, 32, 32), torch.randint(10, (32,))) for _ in range(3)]
    vectors = [(torch.randn(256, 784), torch.randint(10, (256,))) for _ in range(3)]
    ids = [torch.randint(200, (8, 64)) for _ in range(3)]
    return {
        "MLP": (mlp(), "cross_entropy", vectors),
        "CNN": (cnn(), "cross_entropy", images),
        "transformer": (Transformer(), "causal_lm", [(x, x) for x in ids]),
    }
