"""Small models, each with something that a Hessian can trip over."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), act()]
    return nn.Sequential(*layers[:-1])


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class TiedByParameter(nn.Module):
    """An autoencoder whose decoder is its encoder transposed: one Parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 3)
        self.mix = nn.Linear(3, 3)
        self.head = nn.Linear(3, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embed(tokens))))


class TiedByAttribute(nn.Module):
    """One layer under two names, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class StashedWeight(nn.Module):
    """A weight that the forward reads from a plain list, where no function transform finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 3)
        self.stash = [self.body.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x @ self.stash[0].T + self.body.bias))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(2, 2)
        self.used = mlp(3, 4, 3)
        self.after = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 4)
        self.right = nn.Linear(2, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(self.left(a)) * self.right(b)


class Wrapped(nn.Module):
    """A model that returns its logits inside something."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body = mlp(3, 4, 3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.body(x))


def logits_object(logits: Tensor) -> Any:
    return SimpleNamespace(logits=logits, hidden=None)


def logits_dict(logits: Tensor) -> dict[str, Tensor]:
    return {"logits": logits}


class OwnLoss(nn.Module):
    """A model that computes its own loss, as ``(sum, count)``, ``.loss`` or ``{"loss": ...}``."""

    def __init__(self, gives: str) -> None:
        super().__init__()
        self.body = mlp(3, 4, 3)
        self.gives = gives

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        logits = self.body(x)
        if self.gives == "sum and count":
            return F.cross_entropy(logits, labels, reduction="sum"), (labels != -100).sum()
        mean = F.cross_entropy(logits, labels)
        return {"loss": mean, "logits": logits} if self.gives == "dict" else SimpleNamespace(loss=mean, logits=logits)


class OwnLossByName(nn.Module):
    """A model that computes its own regression loss from targets that it calls ``y``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(3, 3, 2)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return SimpleNamespace(loss=F.mse_loss(self.body(x), y))


class SelfAttention(nn.Module):
    """One head on sequences (B, T, d); the mask, where there is one, is a buffer with minus infinity in it."""

    def __init__(self, width: int = 3, *, masked: bool = False, explicit: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.masked, self.explicit = masked, explicit
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.explicit:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            mixed = torch.softmax(scores + self.mask if self.masked else scores, -1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.masked)
        return x + self.out(mixed)


class SequenceClassifier(nn.Module):
    def __init__(self, body: nn.Module, width: int = 3) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class TinyGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.attention = SelfAttention(masked=True)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.attention(self.embed(tokens))))


class MultiheadAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(2, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.inner = mlp(4, 5, 4, act=nn.GELU)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.inner(self.norm(x)))


class Scalars(nn.Module):
    """Parameters without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.7))
        self.shift = nn.Parameter(torch.tensor(-0.2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.slope * x + self.shift)


class Quadratic(nn.Module):
    """Outputs <w, x>^2 / 2 for each example: H is the mean of x x^T."""

    def __init__(self, n: int = 5) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(n))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.w) ** 2 / 2


class Factored(nn.Module):
    """Matrix sensing: <A, W W^T> for each measurement A."""

    def __init__(self, d: int = 4, r: int = 2) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(d, r))

    def forward(self, A: Tensor) -> Tensor:
        return torch.einsum("nij,ik,jk->n", A, self.W, self.W)


class TwoLayerReLU(nn.Module):
    def __init__(self, inputs: int = 4, hidden: int = 7, classes: int = 3) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def with_statistics(model: nn.Module) -> nn.Module:
    """Running statistics as after training: neither zero nor one."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            module.num_batches_tracked.fill_(17)
    return model
