"""A model or data that are random are refused, and the place is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from oracles.models import mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hessdiag import Problem
from hessdiag.errors import DataError, MeasurementError

torch.manual_seed(0)
X, Y = torch.randn(8, 3), torch.arange(8) % 3
BATCHES = [(X[:5], Y[:5]), (X[5:], Y[5:])]


class AlwaysDropout(nn.Module):
    """Ignores that it is in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


class StubbornDropout(nn.Dropout):
    """Stays in training mode."""

    def train(self, mode: bool = True) -> StubbornDropout:
        return super().train(True)


class Block(nn.Module):
    """Random between its two layers, or behind them."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.first, self.second, self.where = nn.Linear(3, 3), nn.Linear(3, 3), where

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.where == "between":
            x = F.dropout(x, training=True)
        x = self.second(x)
        return F.dropout(x, training=True) if self.where == "behind" else x


class Outer(nn.Module):
    """Random itself, behind one block and before the next."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Block("nowhere"), Block("nowhere")

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.a(x), training=True))


def nested(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh(), module), nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (nested(AlwaysDropout()), "in 1.1 (AlwaysDropout)"),
        (nested(StubbornDropout()), "in 1.1 (StubbornDropout)"),
        (nested(Block("behind")), "in 1.1 (Block)"),
        (nested(Block("between")), "in the forward of 1.1 (Block), before 1.1.second (Linear)"),
        (torch.compile(nested(AlwaysDropout()), backend="eager"), "in 1.1 (AlwaysDropout)"),
        (Outer(), "in the forward of the model (Outer), before b (Block)"),
        (nn.Sequential(nn.Linear(3, 3), AlwaysDropout()), "in 1 (AlwaysDropout)"),
    ],
)
def test_a_random_model_is_refused_and_the_place_named(model: nn.Module, place: str) -> None:
    with pytest.raises(MeasurementError) as refusal:
        Problem(model, "cross_entropy", BATCHES)
    assert f"the model is random {place}, although it is in evaluation mode" in str(refusal.value)
    assert "loss of batch 0" in str(refusal.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_randomness_in_a_later_batch_is_seen() -> None:
    class SecondBatch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if len(x) == 5 else F.dropout(x, training=True)

    with pytest.raises(MeasurementError, match=r"loss of batch 1 .* in 1 \(SecondBatch\)"):
        Problem(nn.Sequential(nn.Linear(3, 3), SecondBatch()), "cross_entropy", BATCHES)


def test_a_random_loss_is_refused() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs + torch.randn_like(outputs), targets)

    with pytest.raises(MeasurementError, match="in the loss, or between the modules"):
        Problem(mlp(3, 3), loss, BATCHES)


def test_a_small_randomness_is_enough() -> None:
    class Jitter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (1 + 1e-3 * torch.rand(()))

    with pytest.raises(MeasurementError, match="Jitter"):
        Problem(nn.Sequential(nn.Linear(3, 3), Jitter()), "cross_entropy", BATCHES)


class Augmented(Dataset):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return X[place] + 0.1 * torch.randn(3), Y[place]


class OtherSplitsEachTime:
    def __init__(self) -> None:
        self.times = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.times += 1
        return zip(X.split(1 + self.times), Y.split(1 + self.times), strict=True)


@pytest.mark.parametrize(
    "data",
    [
        DataLoader(Augmented(), batch_size=4),
        DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
        DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True),
        OtherSplitsEachTime(),
    ],
    ids=["augmented", "shuffled", "shuffled within one batch", "split differently"],
)
def test_random_data_are_refused(data: object) -> None:
    with pytest.raises(DataError, match=r"change from one pass to the next.*turn augmentation and shuffling off"):
        Problem(mlp(3, 3), "cross_entropy", data)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).train(),
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train(),
        nn.Sequential(nn.Linear(3, 3), nn.RReLU()).train(),
    ],
)
def test_layers_that_evaluation_mode_makes_deterministic_pass(model: nn.Module) -> None:
    data = DataLoader(TensorDataset(X, Y), batch_size=3)
    assert Problem(model, "cross_entropy", data).loss_value == pytest.approx(
        float(F.cross_entropy(model.eval()(X), Y).detach()), rel=1e-6
    )
