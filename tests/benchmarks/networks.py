"""Networks of a size at which time is spent in torch and not in Python, with random data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A model, the name of its loss, and its batches."""

    model: nn.Module
    loss: str
    batches: Batches


class Residual(nn.Module):
    """relu(skip(x) + bn(conv(relu(bn(conv(x)))))); the skip takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.padding = outputs // inputs, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.padding))
        return F.relu(x + h)


def resnet(width: int = 16, blocks: int = 3) -> nn.Module:
    """ResNet-20 for 32 x 32 pictures: three stages of three blocks, 270,000 weights."""
    stages = [Residual(width, width) for _ in range(blocks)]
    for outputs in (2 * width, 4 * width):
        stages += [Residual(outputs // 2, outputs), *[Residual(outputs, outputs) for _ in range(blocks - 1)]]
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def mlp() -> nn.Module:
    """784-256-256-10, GELU."""
    return nn.Sequential(nn.Linear(784, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10))


class Transformer(nn.Module):
    """Blocks of attention and GELU layers, each on the normalised stream and added to it.

    Causal, it predicts tokens, with the embedding as its head; otherwise it classifies by the first position.
    """

    def __init__(
        self,
        vocab: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        length: int = 64,
        *,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.causal = heads, classes is None
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.proj = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.head = None if classes is None else nn.Linear(width, classes)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        for layer in range(len(self.qkv)):
            mixed = self.qkv[layer](self.norms[2 * layer](h))
            q, k, v = mixed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            h = h + self.proj[layer](mixed.transpose(1, 2).flatten(2))
            h = h + self.down[layer](F.gelu(self.up[layer](self.norms[2 * layer + 1](h))))
        h = self.norms[-1](h)
        return F.linear(h, self.embed.weight) if self.head is None else self.head(h[:, 0])


def _mlp(size: int) -> Case:
    return Case(mlp(), "cross_entropy", _labelled(lambda: torch.randn(32 * size, 784), 10))


def _resnet(size: int) -> Case:
    model = resnet()
    with torch.no_grad():
        for _ in range(10):  # running statistics as a trained network has them: those of its own activations
            model(torch.randn(8 * size, 3, 32, 32))
    return Case(model, "cross_entropy", _labelled(lambda: torch.randn(4 * size, 3, 32, 32), 10))


def _encoder(size: int) -> Case:
    model = Transformer(1000, classes=2)
    return Case(model, "cross_entropy", _labelled(lambda: torch.randint(1000, (2 * size, 64)), 2))


def _causal(size: int) -> Case:
    inputs = [torch.randint(1000, (size, 64)) for _ in range(2)]
    return Case(Transformer(1000), "causal_lm", [(ids, ids) for ids in inputs])


def _labelled(draw: Callable[[], Tensor], classes: int) -> Batches:
    inputs = [draw() for _ in range(2)]
    return [(x, torch.randint(classes, (len(x),))) for x in inputs]


NETWORKS: dict[str, Callable[[int], Case]] = {
    "MLP": _mlp,
    "ResNet": _resnet,
    "encoder": _encoder,
    "causal": _causal,
}
"""MLP 784-256-256-10; ResNet-20; BERT-like encoder and causal decoder of four layers, width 128, 64 tokens."""


def network(name: str, device: torch.device, size: int = 8) -> Case:
    """The network with random weights and two batches of random data; ``size`` scales the batches."""
    torch.manual_seed(0)
    case = NETWORKS[name](size)
    return Case(case.model.to(device), case.loss, [(x.to(device), y.to(device)) for x, y in case.batches])
