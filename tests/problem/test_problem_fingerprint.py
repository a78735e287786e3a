"""The fingerprint of texts: padding to the longest of a batch does not show, and everything else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hessdiag.problem.batches import Fingerprint, read_batch

TEXTS = [[5, 6, 7], [8], [9, 9, 2, 4, 1], [3, 2], [1, 0], [4, 4, 4, 4], [0, 7, 3], [6]]  # 0 is a token too
CLASSES = [0, 1, 1, 0, 2, 0, 1, 2]


def encoded(
    texts: list[list[int]], width: int = 0, *, left: bool = False, labels: Any = "tokens", pad: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    width = max([width, *map(len, texts)])

    def whole(rows: list[list[int]], fill: int) -> Tensor:
        filled = [[fill] * (width - len(row)) for row in rows]
        return torch.tensor([f + row if left else row + f for row, f in zip(rows, filled, strict=True)])

    inputs = {"input_ids": whole(texts, pad), "attention_mask": whole([[1] * len(row) for row in texts], 0)}
    return inputs, whole(texts, -100) if labels == "tokens" else torch.tensor(labels)


def fingerprint(batches: list[Any], *, keep_targets_in: bool = False) -> str:
    result = Fingerprint()
    for index, batch in enumerate(batches):
        result.add(read_batch(batch, index, keep_targets_in=keep_targets_in))
    return result.digest()


def split(size: int, **options: Any) -> list[Any]:
    labels = options.pop("labels", None)
    starts = range(0, len(TEXTS), size)
    rows = [(TEXTS[s : s + size], "tokens" if labels is None else labels[s : s + size]) for s in starts]
    return [encoded(texts, labels=of, **options) for texts, of in rows]


SIZES = (1, 3, 7, 8)


@pytest.mark.parametrize("labels", [None, CLASSES], ids=["tokens", "classes"])
def test_the_size_of_batches_does_not_show(labels):
    assert len({fingerprint(split(size, labels=labels)) for size in SIZES}) == 1


def test_nor_more_padding_nor_its_token():
    prints = {fingerprint(split(3, width=width, pad=pad)) for width, pad in ((0, 0), (9, 0), (9, 7), (30, 50256))}
    assert len(prints) == 1


def test_mappings_with_the_labels_in_them():
    batches = [[inputs | {"labels": labels} for inputs, labels in split(size)] for size in SIZES]
    for keep in (False, True):
        assert len({fingerprint(of, keep_targets_in=keep) for of in batches}) == 1


def test_every_change_shows():
    def changed(row: int, cell: int, to: int, name: str = "input_ids") -> str:
        inputs, labels = encoded(TEXTS)
        (labels if name == "labels" else inputs[name])[row, cell] = to
        return fingerprint([(inputs, labels)])

    moved = [TEXTS[0][:2], [*TEXTS[0][2:], *TEXTS[1]], *TEXTS[2:]]  # the same tokens, another end of the first text
    prints = [
        fingerprint(split(8)),
        changed(0, 2, 6),
        changed(0, 2, 6, "labels"),
        changed(0, 2, -100, "labels"),
        changed(0, 3, 5, "labels"),  # a target at padding
        changed(0, 3, 1, "attention_mask"),
        changed(0, 1, 0, "attention_mask"),
        changed(1, 0, 0, "attention_mask"),  # nothing is attended
        fingerprint([encoded(moved)]),
        fingerprint([encoded(TEXTS[::-1])]),
        fingerprint([encoded(TEXTS[:-1])]),
        fingerprint([encoded(TEXTS, left=True)]),
        fingerprint(split(8, labels=CLASSES)),
        fingerprint(split(8, labels=[*CLASSES[:-1], 0])),
        fingerprint(split(8, labels=CLASSES[::-1])),
    ]
    assert len(set(prints)) == len(prints)


def test_a_target_at_padding_is_seen_with_what_is_before_it():
    def at(token: int, target: int) -> str:
        inputs, labels = encoded(TEXTS)
        inputs["input_ids"][0, 3], labels[0, 4] = token, target
        return fingerprint([(inputs, labels)])

    assert len({at(0, -100), at(1, -100)}) == 1
    assert len({at(0, 2), at(1, 2), at(0, 3)}) == 3


def test_a_text_in_which_nothing_is_attended_is_kept_whole():
    def hidden(token: int) -> str:
        inputs, labels = encoded([[1, 2], [token]], labels=[0, 1])
        inputs["attention_mask"][1] = 0
        return fingerprint([(inputs, labels)])

    assert hidden(1) != hidden(2)


@pytest.mark.parametrize("name", ["features", "attention_mask"])
def test_real_numbers_of_the_masks_shape_are_no_tokens(name):
    def at(value: float) -> str:
        inputs, labels = encoded(TEXTS, labels=CLASSES)
        other = torch.ones(inputs["input_ids"].shape)
        other[0, -1] = value
        return fingerprint([(inputs | {name: other}, labels)])

    assert at(0.0) != at(1.0)


def test_other_inputs_beside_tokens_are_seen_whole():
    inputs, labels = encoded(TEXTS, labels=CLASSES)
    beside = torch.zeros(len(TEXTS), 2, dtype=torch.int64)
    changed = beside.clone()
    changed[0, -1] = 1
    prints = {fingerprint([(inputs | {"beside": item}, labels)]) for item in (beside, changed)}
    assert len(prints) == 2
