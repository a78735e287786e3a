"""Batches that a user's function made: shuffled and split as wholes, never mixed up with one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import graph_files
import numpy as np
import pytest
import tiny
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from training_forms import EXAMPLES, X, Y, fingerprint, numbers_in

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import room
from hessdiag.nso.training_data import TrainingData
from hessdiag.nso.whole_batches import WholeBatches
from hessdiag.problem.batches import read_batch

PAIRS = list(zip(X.split(3), Y.split(3), strict=True))


class OneBuffer:
    """A loader that fills the same memory again and again, as some do to save time."""

    def __init__(self, as_arrays: bool) -> None:
        self._x, self._y, self._as_arrays = torch.empty(3, 4), torch.empty(3, dtype=torch.int64), as_arrays

    def __iter__(self) -> Iterator[Any]:
        for x, y in PAIRS[:-1]:
            self._x.copy_(x)
            self._y.copy_(y)
            yield (self._x.numpy(), self._y.numpy()) if self._as_arrays else (self._x, self._y)


def graph_batches() -> list[Any]:
    geometric = graph_files.torch_geometric.data
    graphs = []
    for number, graph in enumerate(graph_files.random_graphs(EXAMPLES)):
        edges = torch.from_numpy(np.ascontiguousarray(graph.edges.T))
        x = torch.from_numpy(graph.attributes)
        graphs.append(geometric.Data(x=x, edge_index=edges, y=torch.tensor([number])))
    return [geometric.Batch.from_data_list(graphs[start : start + 3]) for start in range(0, EXAMPLES, 3)]


FORMS = {
    "list": lambda: PAIRS,
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=3),
    "mappings": lambda: [{"input": x, "labels": y} for x, y in PAIRS],
    "tuples": lambda: [((x, x[:, :1]), y) for x, y in PAIRS],
    "arrays": lambda: [(x.numpy(), y.numpy()) for x, y in PAIRS],
    "graphs": graph_batches,
}


@pytest.mark.parametrize("form", FORMS)
def test_whole_batches_in_another_order_each_epoch_as_the_data_give_them(form: str) -> None:
    given = [fingerprint(read_batch(raw, 0)) for raw in FORMS[form]()]
    data = TrainingData(FORMS[form](), batch_size=2)
    orders = [[fingerprint(batch) for batch in data.epoch(epoch)] for epoch in range(3)]
    assert all(sorted(order) == sorted(given) for order in orders)
    assert len({str(order) for order in [given, *orders]}) == 4
    assert orders[1][3:] == [fingerprint(batch) for batch in data.epoch(1, skip=3)]
    assert data.examples == EXAMPLES
    assert data.minibatches == 8


def test_whole_batches_are_set_aside_and_monitored() -> None:
    data = TrainingData(PAIRS, batch_size=2, validation=0.3)
    held_out = [targets.tolist() for _, targets in data.validation]
    assert len(held_out) == 2
    training = [numbers_in(batch) for batch in data.epoch(0)]
    assert sorted(held_out + training) == [y.tolist() for _, y in PAIRS]
    assert data.examples == sum(map(len, training))
    subset = data.monitored(7)
    monitored = [targets.tolist() for _, targets in subset]
    assert all(numbers in training for numbers in monitored)
    assert sum(map(len, monitored)) == subset.examples >= 7
    assert len(monitored) == 3


def test_the_history_is_told_that_the_batch_size_is_not_used() -> None:
    assert TrainingData(PAIRS, batch_size=2).note == (
        "the data come in batches: whole ones are shuffled and set aside for validation, and their sizes stand in "
        "place of batch_size"
    )


@pytest.mark.parametrize("as_arrays", [False, True])
def test_a_loader_that_fills_one_buffer_gives_other_batches_nonetheless(as_arrays: bool) -> None:
    data = TrainingData(OneBuffer(as_arrays), batch_size=2)
    assert sorted(numbers_in(batch) for batch in data.epoch(0)) == [y.tolist() for _, y in PAIRS[:-1]]
    for batch in data.epoch(0):
        assert torch.equal(batch.inputs, X[batch.targets])


def test_views_of_one_tensor_are_held_once() -> None:
    held = WholeBatches(PAIRS)
    storages = {tensor.untyped_storage().nbytes() for row in range(7) for tensor in held.batch(np.array([row]))}
    assert storages == {3 * 4 * 4, 3 * 8}


def test_a_layer_that_writes_to_its_inputs_changes_neither_the_users_batches_nor_those_held() -> None:
    given = [(torch.zeros(3, 4), Y[:3])]
    data = TrainingData(given, batch_size=2)
    for epoch in range(2):
        (batch,) = data.epoch(epoch)
        assert not batch.inputs.any()
        batch.inputs.fill_(1)
    assert not given[0][0].any()


def test_targets_stay_in_a_mapping_for_a_model_that_computes_its_own_loss() -> None:
    data = TrainingData([{"x": x, "labels": y} for x, y in PAIRS], batch_size=2, keep_targets_in=True)
    assert {tuple(batch.inputs) for batch in data.epoch(0)} == {("x", "labels")}
    without: Any = [{"x": x} for x, _ in PAIRS]
    assert TrainingData(without, batch_size=2, keep_targets_in=True).examples == EXAMPLES


# -- refusals ----------------------------------------------------------------------------------------------------


class Failing:
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield PAIRS[0]
        raise ValueError("no such file")


def test_batches_that_change_are_refused_and_not_held_as_one_draw() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True)
    with pytest.raises(DataError, match="the data change from one pass to the next"):
        TrainingData(loader, batch_size=4)
    with pytest.raises(UsageError, match="which can be read once"):
        TrainingData(iter(PAIRS), batch_size=4)


def test_a_single_batch_cannot_be_split() -> None:
    with pytest.raises(UsageError, match=r"found 0\.1 of a single batch, which cannot be taken apart; expected at"):
        TrainingData(tiny.batches(30), batch_size=4, validation=0.1)


def test_batches_that_cannot_be_read() -> None:
    with pytest.raises(DataError, match=r"the data could not be read, at batch 1: ValueError: no such file"):
        TrainingData(Failing(), batch_size=4)
    with pytest.raises(DataError, match="the data hold no batches, expected at least one"):
        TrainingData([], batch_size=4)
    with pytest.raises(DataError, match="batch 0: found a Tensor of length 3"):
        TrainingData([X[:3]], batch_size=4)


def test_batches_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_memory", lambda device: 80)
    with pytest.raises(DataError) as caught:
        TrainingData(PAIRS, batch_size=4)
    assert str(caught.value) == (
        "data: batch 0, held with those before it so that they can be shuffled, takes 7.2e-08 GB in memory, of which "
        "8e-08 GB are free: let the function return a Dataset, whose examples are read when their turn comes"
    )
