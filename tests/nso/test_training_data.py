"""What a run trains on: each example once in an epoch, in an order that the seed and the epoch alone decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from training_forms import EXAMPLES, FORMS, READ_BY, examples, fingerprint, numbers_in

from hessdiag.errors import UsageError
from hessdiag.loading.datasets.arrays import ArrayExamples
from hessdiag.loading.datasets.examples import Batches, Rows
from hessdiag.nso.augment import Augmentation
from hessdiag.nso.training_data import TrainingData
from hessdiag.problem import Problem
from hessdiag.problem.batches import read_batch

every_form = pytest.mark.parametrize("form", FORMS)


class Watched(ArrayExamples):
    """Examples that remember what was asked of them."""

    def __init__(self, count: int) -> None:
        super().__init__(torch.zeros(count, 2), torch.arange(count))
        self.asked: list[list[int]] = []

    def batch(self, rows: Rows) -> Any:
        self.asked.append(rows.tolist())
        return super().batch(rows)


def orders(data: TrainingData, epoch: int, skip: int = 0) -> list[list[int]]:
    return [numbers_in(batch) for batch in data.epoch(epoch, skip)]


def in_epoch(data: TrainingData) -> list[int]:
    return [number for numbers in orders(data, 0) for number in numbers]


def in_order(batches: Any) -> list[int]:
    return [number for index, raw in enumerate(batches) for number in numbers_in(read_batch(raw, index))]


# -- epochs ------------------------------------------------------------------------------------------------------


@every_form
def test_each_example_is_in_one_minibatch_of_an_epoch_as_the_data_give_it(form: str, tmp_path: Path) -> None:
    loaded = FORMS[form](tmp_path)
    everything = in_order(loaded)
    data = TrainingData(loaded, batch_size=4)
    assert data.examples == len(everything)
    assert data.minibatches == -(-len(everything) // 4)
    seen = []
    for place, batch in enumerate(data.epoch(2)):
        numbers = numbers_in(batch)
        seen += numbers
        assert numbers == sorted(numbers)
        assert batch.index == place
        assert batch.examples == len(numbers)
        expected = read_batch(loaded.examples.batch(np.array(numbers)), place)
        assert fingerprint(batch) == fingerprint(expected)
        assert batch.on(torch.device("cpu"), torch.float64).shapes() != ""
    assert sorted(seen) == everything
    assert seen != everything


def test_the_last_minibatch_may_be_smaller() -> None:
    sizes = [batch.examples for batch in TrainingData(examples(), batch_size=7).epoch(0)]
    assert sizes == [7, 7, 7, 2]
    assert [batch.examples for batch in TrainingData(examples(), batch_size=100).epoch(0)] == [23]


def test_the_order_is_of_the_seed_and_the_epoch_alone() -> None:
    data = TrainingData(examples(), batch_size=4, seed=1)
    epochs = [orders(data, epoch) for epoch in range(5)]
    assert len({str(order) for order in epochs}) == 5
    assert orders(TrainingData(examples(), batch_size=4, seed=1), 3) == epochs[3]
    torch.manual_seed(5)
    np.random.seed(5)
    assert orders(data, 3) == epochs[3]
    assert orders(TrainingData(examples(), batch_size=4, seed=2), 3) != epochs[3]


def test_drawing_minibatches_leaves_the_random_state() -> None:
    data = TrainingData(examples(), batch_size=4, validation=0.2)
    before = torch.get_rng_state()
    orders(data, 0)
    data.monitored(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_place_in_the_order_is_as_likely() -> None:
    """The mean place of each of 10 examples over 200 epochs, in standard errors."""
    data = TrainingData(examples(10), batch_size=1)
    places = np.array([np.argsort([number for (number,) in orders(data, epoch)]) for epoch in range(200)])
    deviations = (places.mean(0) - 4.5) / (np.sqrt((10**2 - 1) / 12) / np.sqrt(200))
    assert np.abs(deviations).max() < 3.5


@pytest.mark.parametrize("skip", [0, 1, 4, 5, 6])
def test_a_resumed_epoch_is_the_tail_of_the_whole_and_reads_no_more(skip: int) -> None:
    watched = Watched(EXAMPLES)
    data = TrainingData(Batches(watched, None, 5), batch_size=4)
    whole = orders(data, 2)
    watched.asked.clear()
    rest = list(data.epoch(2, skip))
    assert [numbers_in(batch) for batch in rest] == whole[skip:]
    assert [batch.index for batch in rest] == list(range(skip, 6))
    assert watched.asked == whole[skip:]


@pytest.mark.parametrize("batch_size", [1, 4, EXAMPLES])
def test_a_layer_that_writes_to_its_inputs_does_not_change_the_data(batch_size: int) -> None:
    loaded = examples()
    before = loaded.examples.inputs.clone()
    data = TrainingData(loaded, batch_size=batch_size)
    for batch in (*data.epoch(0), data.example(0)):
        batch.inputs.fill_(7)
    assert torch.equal(loaded.examples.inputs, before)


# -- the split ---------------------------------------------------------------------------------------------------


@every_form
def test_the_two_parts_are_disjoint_and_together_everything(form: str, tmp_path: Path) -> None:
    loaded = FORMS[form](tmp_path)
    data = TrainingData(loaded, batch_size=4, validation=0.3)
    training = sorted(in_epoch(data))
    held_out = in_order(data.validation)
    assert held_out == in_order(data.validation) == sorted(held_out)
    assert len(held_out) == round(0.3 * len(in_order(loaded)))
    assert sorted(training + held_out) == in_order(loaded)
    assert data.examples == len(training)


def test_the_split_is_of_its_own_seed_alone() -> None:
    def held_out(choice: int, batch_size: int, seed: int = 0) -> list[int]:
        return in_order(
            TrainingData(examples(), batch_size=batch_size, seed=seed, choice_seed=choice, validation=0.3).validation
        )

    assert held_out(0, 4) == held_out(0, 32) == held_out(0, 4, seed=1)
    assert held_out(0, 4) != held_out(1, 4)
    assert held_out(0, 4) != list(range(EXAMPLES))[-7:]


def test_validation_is_read_in_batches_of_the_data() -> None:
    validation = TrainingData(examples(), batch_size=2, validation=0.5).validation
    assert validation is not None
    assert [len(targets) for _, targets in validation] == [5, 5, 2]


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"),
    [(23, 0.1, 2), (4, 0.1, 1), (2, 0.01, 1), (10, 0.99, 9), (2, 0.99, 1), (10, 0.25, 2), (5, 0.5, 2)],
)
def test_at_least_one_example_is_in_each_part(count: int, fraction: float, held_out: int) -> None:
    data = TrainingData(examples(count), batch_size=4, validation=fraction)
    assert len(in_order(data.validation)) == held_out
    assert data.examples == count - held_out


def test_without_a_fraction_everything_is_trained_on() -> None:
    data = TrainingData(examples(), batch_size=4, validation=0)
    assert data.validation is None
    assert data.examples == EXAMPLES


def test_a_subset_of_the_data_is_split_and_not_left() -> None:
    rows = np.array([1, 4, 5, 9, 12, 20])
    data = TrainingData(examples(rows=rows), batch_size=4, validation=0.4)
    assert sorted(in_epoch(data) + in_order(data.validation)) == rows.tolist()
    assert len(in_order(data.validation)) == 2


def test_validation_data_of_their_own_are_taken_as_they_are() -> None:
    other = examples(9)
    data = TrainingData(examples(), batch_size=4, validation=other)
    assert data.examples == EXAMPLES
    assert data.validation is other


# -- the monitored subset ----------------------------------------------------------------------------------------


def test_the_monitored_examples_are_the_same_whenever_they_are_asked_for() -> None:
    data = TrainingData(examples(200), batch_size=4, seed=8, choice_seed=3, validation=0.2)
    subset = data.monitored(50)
    numbers = in_order(subset)
    assert numbers == in_order(subset) == in_order(data.monitored(50)) == sorted(set(numbers))
    assert len(numbers) == subset.examples == 50
    assert not set(numbers) & set(in_order(data.validation))
    assert [len(targets) for _, targets in subset] == [READ_BY] * 10
    assert (subset.of, subset.seed) == (160, 3)
    assert str(subset) == "50 of 160 training examples (seed 3)"
    orders(data, 0)
    assert (
        in_order(TrainingData(examples(200), batch_size=9, seed=9, choice_seed=3, validation=0.2).monitored(50))
        == numbers
    )
    assert in_order(TrainingData(examples(200), batch_size=4, choice_seed=4, validation=0.2).monitored(50)) != numbers


@pytest.mark.parametrize("count", [EXAMPLES, 1000])
def test_all_are_monitored_where_there_are_no_more(count: int) -> None:
    subset = TrainingData(examples(), batch_size=4).monitored(count)
    assert in_order(subset) == list(range(EXAMPLES))
    assert subset.examples == subset.of == EXAMPLES


def test_sharpness_is_measured_on_every_part() -> None:
    data = TrainingData(tiny.batches(3), batch_size=1, validation=0.3)
    for part, count in ((data.validation, 9), (data.monitored(10), 12)):
        assert part is not None
        assert Problem(tiny.network(), "cross_entropy", part).examples == count


# -- augmentation ------------------------------------------------------------------------------------------------


def images(count: int = 30) -> Batches:
    pixels = torch.randn(count, 2, 5, 6, generator=torch.Generator().manual_seed(1))
    return Batches(ArrayExamples(pixels, torch.arange(count)), None, 8)


def test_minibatches_are_augmented_bit_for_bit_alike_after_a_resumption() -> None:
    first, again = (TrainingData(images(), batch_size=4, augment=Augmentation(2, flip=True)) for _ in range(2))
    whole, rest = list(first.epoch(1)), list(again.epoch(1, skip=3))
    plain = list(TrainingData(images(), batch_size=4).epoch(1))
    for batch, other, without in zip(whole[3:], rest, plain[3:], strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.targets, without.targets)
        assert not torch.equal(batch.inputs, without.inputs)


def test_each_minibatch_and_epoch_has_draws_of_its_own() -> None:
    """Of eight equal images, so that nothing but the draws tells their minibatches apart."""
    same = Batches(ArrayExamples(torch.arange(30.0).reshape(1, 1, 5, 6).repeat(64, 1, 1, 1), torch.zeros(64)), None, 8)
    seeds = [TrainingData(same, batch_size=8, seed=seed, augment=Augmentation(2, flip=True)) for seed in (0, 1)]
    drawn = [batch.inputs for data in seeds for epoch in (0, 1) for batch in data.epoch(epoch)]
    assert len({inputs.numpy().tobytes() for inputs in drawn}) == 32


def test_validation_and_monitor_see_images_as_they_are() -> None:
    loaded = images()
    data = TrainingData(loaded, batch_size=4, validation=0.3, augment=Augmentation(2, flip=True))
    for part in (data.validation, data.monitored(9)):
        assert part is not None
        for inputs, targets in part:
            assert torch.equal(inputs, loaded.examples.inputs[targets])


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validation": 1.0}, "train.validation: found 1, expected a fraction of at least 0 and below 1"),
        ({"validation": -0.1}, "train.validation: found -0.1, expected a fraction"),
        ({"validation": float("nan")}, "train.validation: found nan, expected a fraction"),
        ({"validation": iter([])}, "which can be read once"),
        ({"batch_size": 0}, "train.batch_size: found 0, expected a whole number of at least 1"),
        ({"seed": -1}, "train.seed: found -1, expected a whole number of at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainingData(examples(), **{"batch_size": 4, **options})
    assert said in str(caught.value)


def test_a_single_example_cannot_be_split() -> None:
    with pytest.raises(UsageError, match=r"found 0\.1 of a single example; expected at least one for training and one"):
        TrainingData(examples(1), batch_size=4, validation=0.1)
    assert TrainingData(examples(1), batch_size=4).examples == 1


def test_nothing_cannot_be_monitored() -> None:
    with pytest.raises(UsageError, match=r"train\.monitor_examples: found 0, expected a whole number of at least 1"):
        TrainingData(examples(), batch_size=4).monitored(0)


def test_images_in_rows_are_not_augmented() -> None:
    data = TrainingData(examples(), batch_size=4, augment=Augmentation(1))
    with pytest.raises(UsageError, match=r"train\.augment: found with inputs that are a tensor of shape \(4, 2\)"):
        next(data.epoch(0))


# -- training ----------------------------------------------------------------------------------------------------


def test_a_run_that_is_resumed_anywhere_has_the_weights_of_one_that_was_not() -> None:
    def trained(*pieces: tuple[int, int, int]) -> bytes:
        """Of (epoch, first minibatch, one after the last), each by data of its own."""
        torch.manual_seed(0)
        model = nn.Linear(2, EXAMPLES)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for epoch, start, stop in pieces:
            data = TrainingData(examples(), batch_size=4, validation=0.2)
            for _, batch in zip(range(stop - start), data.epoch(epoch, start), strict=False):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
                optimizer.step()
        return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())

    assert trained((0, 0, 5), (1, 0, 5)) == trained((0, 0, 2), (0, 2, 5), (1, 0, 4), (1, 4, 5))
    assert trained((0, 0, 5), (1, 0, 5)) != trained((0, 0, 5), (2, 0, 5))
