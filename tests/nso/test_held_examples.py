"""What is slow to read by number is read once, and is the same whether it is held or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from training_forms import FORMS, fingerprint

from hessdiag.errors import DataError
from hessdiag.loading.datasets.examples import Batches
from hessdiag.loading.datasets.python import DatasetExamples
from hessdiag.nso import held_examples
from hessdiag.nso.held_examples import held
from hessdiag.nso.training_data import TrainingData
from hessdiag.problem.batches import Batch
from hessdiag.problem.structure import leaves

HELD = {"parquet", "jsonl", "hf", "pictures", "dataset", "dataset of mappings"}


def layouts(batch: Batch) -> list[Any]:
    tensors = [leaf for _, leaf in leaves((batch.inputs, batch.targets)) if isinstance(leaf, torch.Tensor)]
    return [(tensor.dtype, tensor.stride()) for tensor in tensors]


@pytest.mark.parametrize("form", FORMS)
def test_minibatches_are_the_same_bit_for_bit_held_or_not(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also how they lie in memory, on which the rounding of a product may depend."""
    loaded = FORMS[form](tmp_path)
    assert (held(loaded) is not loaded) == (form in HELD)
    first = list(TrainingData(loaded, batch_size=4, validation=0.2).epoch(0))
    monkeypatch.setattr(held_examples, "available_memory", lambda device: 0)
    assert held(loaded) is loaded
    second = list(TrainingData(loaded, batch_size=4, validation=0.2).epoch(0))
    assert list(map(fingerprint, first)) == list(map(fingerprint, second))
    assert list(map(layouts, first)) == list(map(layouts, second))


@pytest.mark.parametrize("form", sorted(HELD))
def test_what_is_held_is_read_before_the_first_epoch_alone(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = FORMS[form](tmp_path)
    asked: list[int] = []
    read = loaded.examples.batch
    monkeypatch.setattr(loaded.examples, "batch", lambda rows: asked.extend(rows) or read(rows))
    data = TrainingData(loaded, batch_size=4, validation=0.2)
    for epoch in range(2):
        list(data.epoch(epoch))
    assert data.validation is not None
    list(data.validation)
    assert asked == [*range(23), *range(5)]  # the first batch again: is it the same?


class Uneven(Dataset[Any]):
    """Examples of which a batch is now in one type of numbers, now in another."""

    def __init__(self, changed: Any) -> None:
        self._changed = changed

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return (torch.zeros(2) if row < 3 else self._changed), row


@pytest.mark.parametrize(
    "changed", [torch.zeros(2, dtype=torch.float64), torch.zeros(4), {"x": torch.zeros(2)}, "words"], ids=type
)
def test_what_changes_from_batch_to_batch_is_not_held(changed: Any) -> None:
    data = Batches(DatasetExamples(Uneven(changed), "data.py:build"), None, 3)
    assert held(data) is data


class Random(Dataset[Any]):
    """Examples with an augmentation of their own."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return torch.randn(2), row


def test_random_examples_are_refused_and_not_held_as_one_draw() -> None:
    with pytest.raises(DataError, match=r"the data change from one pass to the next \(random augmentation, or shuff"):
        TrainingData(Batches(DatasetExamples(Random(), "data.py:build"), None, 3), batch_size=2)
