"""Forms of data that are taken, and the fingerprint of what they hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from oracles.models import TwoInputs, mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hessdiag import Problem

torch.manual_seed(0)
X, Y = torch.randn(7, 3), torch.arange(7) % 3
MODEL = mlp(3, 3)


def fingerprint(x: Tensor = X, y: Tensor = Y, size: int = 7, model: nn.Module = MODEL) -> str:
    batches = list(zip(x.split(size), y.split(size), strict=True))
    return Problem(model, "cross_entropy", batches).data_info.fingerprint


def test_the_fingerprint_does_not_see_the_split() -> None:
    assert len({fingerprint(size=size) for size in (1, 2, 3, 5, 7)}) == 1


def test_the_fingerprint_does_not_see_the_model() -> None:
    assert fingerprint() == fingerprint(model=mlp(3, 5, 3).double())


def test_the_fingerprint_sees_every_change() -> None:
    value, target = X.clone(), Y.clone()
    value[4, 1] = torch.nextafter(value[4, 1], torch.tensor(10.0))
    target[6] = (target[6] + 1) % 3
    order = torch.tensor([1, 0, 2, 3, 4, 5, 6])
    changed = [
        fingerprint(x=value),
        fingerprint(y=target),
        fingerprint(x=X[order], y=Y[order]),
        fingerprint(x=X[order]),
        fingerprint(x=X.double()),
        fingerprint(y=Y.to(torch.int32)),
        fingerprint(x=X[:6], y=Y[:6]),
        fingerprint(),
    ]
    assert len(set(changed)) == len(changed)


def test_the_fingerprint_sees_names_and_shapes() -> None:
    a, b, y = torch.randn(4, 2), torch.randn(4, 2), torch.arange(4) % 4
    model = nn.Linear(2, 4)
    loss = lambda outputs, targets: F.cross_entropy(outputs, targets)  # noqa: E731

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.body(a + b)

    prints = [
        Problem(Sum(), loss, [({"a": a, "b": b}, y)]).data_info.fingerprint,
        Problem(Sum(), loss, [({"a": b, "b": a}, y)]).data_info.fingerprint,
        Problem(Sum(), loss, [((a, b), y)]).data_info.fingerprint,
    ]
    assert len(set(prints)) == 3


def test_the_fingerprint_sees_the_order_of_batches_of_different_lengths() -> None:
    """Sequences padded batch by batch."""
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    batches = [(torch.randn(2, 2, length), torch.arange(2)) for length in (5, 7, 5)]
    one, two, three = (
        Problem(model, "cross_entropy", [batches[i] for i in order]).data_info.fingerprint
        for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1))
    )
    assert len({one, two, three}) == 3


def expected() -> float:
    return float(F.cross_entropy(MODEL(X), Y).detach())


def read_only() -> Any:
    x = X.numpy().copy()
    x.flags.writeable = False
    return [(x, Y.numpy())]


FORMS: dict[str, Any] = {
    "loader": DataLoader(TensorDataset(X, Y), batch_size=2, num_workers=0),
    "arrays": [(X.numpy(), Y.numpy())],
    "read-only arrays": read_only(),
    "float64 arrays": [(X.numpy().astype(np.float64), Y.numpy().astype(np.int16))],
    "int32 targets": [(X, Y.to(torch.int32))],
    "uint8 targets": [(X, Y.to(torch.uint8))],
    "lists": [[X, Y]],
    "tuple of batches": ((X[:2], Y[:2]), (X[2:], Y[2:])),
    "label": [{"input": X, "label": Y}],
    "y": [{"y": Y, "input": X}],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form: str) -> None:
    problem = Problem(MODEL, "cross_entropy", FORMS[form])
    assert problem.loss_value == pytest.approx(expected(), rel=1e-6)
    assert (problem.examples, problem.weight) == (7, 7.0)
    assert problem.data_info.batches == (4 if form == "loader" else 2 if form == "tuple of batches" else 1)


class Pairs(Dataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, place: int) -> tuple[tuple[Tensor, Tensor], int]:
        return (X[place], X[place, :2]), place % 4


def test_a_data_loader_of_pairs_of_inputs() -> None:
    model = TwoInputs()
    problem = Problem(model, "cross_entropy", DataLoader(Pairs(), batch_size=2))
    truth = F.cross_entropy(model(X[:5], X[:5, :2]), torch.arange(5) % 4)
    assert problem.loss_value == pytest.approx(float(truth.detach()), rel=1e-6)


class Graphs:
    """As a graph library's batch: an object with ``.to``, ``.y`` and a count of its graphs."""

    def __init__(self, x: Tensor, graph: Tensor, y: Tensor) -> None:
        self.x, self.graph, self.y, self.num_graphs = x, graph, y, len(y)

    def to(self, device: torch.device) -> Graphs:
        return Graphs(self.x.to(device), self.graph.to(device), self.y.to(device))

    def to_dict(self) -> dict[str, Tensor]:
        return {"x": self.x, "graph": self.graph, "y": self.y}


class GraphNetwork(nn.Module):
    def __init__(self, own_loss: bool) -> None:
        super().__init__()
        self.body, self.own_loss = nn.Linear(3, 3), own_loss

    def forward(self, batch: Graphs) -> Any:
        nodes = torch.tanh(self.body(batch.x))
        logits = torch.zeros(batch.num_graphs, 3).index_add(0, batch.graph, nodes)
        if self.own_loss:
            return SimpleNamespace(loss=F.cross_entropy(logits, batch.y))
        return logits


@pytest.mark.parametrize("own_loss", [True, False])
def test_batches_that_are_objects(own_loss: bool) -> None:
    graph = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    batch = Graphs(X, graph, torch.tensor([0, 2, 1]))
    model = GraphNetwork(own_loss)
    problem = Problem(model, "model" if own_loss else "cross_entropy", [batch])
    logits = GraphNetwork.forward(model, batch)
    truth = logits.loss if own_loss else F.cross_entropy(logits, batch.y)
    assert problem.loss_value == pytest.approx(float(truth.detach()), rel=1e-6)
    assert problem.examples == 3
