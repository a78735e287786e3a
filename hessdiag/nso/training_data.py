"""The data of a training run: minibatches in random order, a part for validation, and a fixed one for the monitor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hessdiag.curvature.keyed import keyed_generator
from hessdiag.errors import UsageError
from hessdiag.loading.datasets.examples import Batches, Rows
from hessdiag.nso.augment import Augmentation
from hessdiag.nso.held_examples import held
from hessdiag.nso.whole_batches import WholeBatches, copied
from hessdiag.problem.batches import Batch, read_batch
from hessdiag.problem.requirements import refuse_what_is_read_once

__all__ = ["Subset", "TrainingData"]

_SPLIT, _ORDER, _MONITOR, _AUGMENT, _EXAMPLE = range(111, 116)  # streams beside those of the noise and of the methods
_CPU = torch.device("cpu")
_WHOLE_BATCHES = (
    "the data come in batches: whole ones are shuffled and set aside for validation, and their sizes stand in place of "
    "batch_size"
)


@dataclass(frozen=True)
class Subset:
    """Some of the training examples, chosen at random; a re-iterable of batches as :class:`hessdiag.Problem` takes it.

    Attributes:
        batches: in the order of the data.
        examples: how many.
        of: out of how many.
        seed: of the choice; together with the data the four name the subset.
    """

    batches: Iterable[Any]
    examples: int
    of: int
    seed: int

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __str__(self) -> str:
        """As in ``1000 of 1293 training examples (seed 0)``."""
        return f"{self.examples} of {self.of} training examples (seed {self.seed})"


class TrainingData:
    """What a run trains on, and what it is validated on.

    Every order and choice is keyed by the seed and by its place in the run, and none by what was drawn before, so that
    a resumed run sees what an uninterrupted one would have seen.

    Data that are batches already (of a user's function) have no examples by number. They are held in memory, whole
    batches are shuffled and set aside for validation, and ``batch_size`` is not used; ``note`` says so.

    Args:
        data: what :func:`hessdiag.loading.datasets.load_data` returns, or any iterable of batches.
        batch_size: examples in a minibatch; the last one of an epoch may have fewer.
        seed: of the run: of the order and the changes of the examples.
        choice_seed: of what is validated and monitored on, which runs of several seeds should share.
        validation: the fraction of ``data`` that is set aside, at least one example of it (0: none), or data of their
            own, in the same form.
        augment: what becomes of the minibatches' inputs; validation and monitor see them as they are.
        keep_targets_in: leave the targets inside a mapping, for a model that computes its own loss.

    Attributes:
        examples: the count of those that are trained on.
        minibatches: in an epoch.
        validation: a re-iterable of batches in order, as :class:`hessdiag.Problem` takes it; None: there is none.
        note: what a reader of the run's history should know of how the data were used; None: nothing unusual.

    Raises:
        UsageError: a fraction that is none, nothing to split, a batch size below 1, a seed below 0, or data that
            can be read only once.
        DataError: data that cannot be read, do not fit into memory where they must be held, or change from one pass to
            the next.
    """

    def __init__(
        self,
        data: Iterable[Any],
        *,
        batch_size: int,
        seed: int = 0,
        choice_seed: int = 0,
        validation: float | Iterable[Any] = 0.0,
        augment: Augmentation | None = None,
        keep_targets_in: bool = False,
    ) -> None:
        _at_least(batch_size, 1, "train.batch_size")
        _at_least(seed, 0, "train.seed")
        refuse_what_is_read_once(data)
        self._choice_seed = choice_seed
        self._seed, self._augment, self._keep_targets_in = seed, augment, keep_targets_in
        self._source, self._sizes = _by_number(data)
        self._in_minibatch = batch_size if self._sizes is None else 1
        self.note = None if self._sizes is None else _WHOLE_BATCHES
        rows = np.arange(len(self._source.examples)) if self._source.rows is None else self._source.rows
        self.validation: Iterable[Any] | None
        if isinstance(validation, (int, float)):
            self._rows, held_out = self._split(rows, validation)
            self.validation = self._in_order(held_out) if len(held_out) else None
        else:
            refuse_what_is_read_once(validation)
            self._rows, self.validation = rows, validation
        self.examples = int(self._counts(self._rows).sum())
        self.minibatches = -(-len(self._rows) // self._in_minibatch)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The minibatches of an epoch, each example in one of them; ``index`` is their place in it.

        Args:
            number: of the epoch, from 0.
            skip: how many to pass over at the beginning; they are not read.
        """
        order = _shuffled(self._rows, self._seed, _ORDER, number)
        for index in range(skip, self.minibatches):
            start = index * self._in_minibatch
            rows = np.sort(order[start : start + self._in_minibatch])
            batch = self._minibatch(rows, index)
            if self._augment is not None:
                generator = keyed_generator(_CPU, self._seed, _AUGMENT, number, index)
                batch = replace(batch, inputs=self._augment(batch.inputs, generator))
            yield batch

    def example(self, number: int) -> Batch:
        """A random training example by itself, another for each ``number``; of data that are batches, one of these."""
        chosen = torch.randint(len(self._rows), (1,), generator=keyed_generator(_CPU, self._seed, _EXAMPLE, number))
        row = self._rows[chosen.numpy()]
        return self._minibatch(row, number)

    def monitored(self, count: int) -> Subset:
        """The same ``count`` training examples whenever it is asked; all, if there are no more.

        Of data that are batches already, as many whole ones as hold that many examples.

        Raises:
            UsageError: a count below 1.
        """
        _at_least(count, 1, "train.monitor_examples")
        chosen = _shuffled(self._rows, self._choice_seed, _MONITOR)
        counts = self._counts(chosen)
        enough = int(np.searchsorted(counts.cumsum(), count)) + 1
        rows = np.sort(chosen[:enough])
        return Subset(self._in_order(rows), int(counts[:enough].sum()), self.examples, self._choice_seed)

    def _split(self, rows: Rows, fraction: float) -> tuple[Rows, Rows]:
        """For training and for validation, ascending."""
        if not 0 <= fraction < 1:
            raise UsageError(f"found {fraction:g}, expected a fraction of at least 0 and below 1", "train.validation")
        if fraction == 0:
            return rows, rows[:0]
        if len(rows) < 2:
            what = "example" if self._sizes is None else "batch, which cannot be taken apart"
            raise UsageError(
                f"found {fraction:g} of a single {what}; expected at least one for training and one for validation: "
                "set it to 0, or name validation data of their own",
                "train.validation",
            )
        held_out = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        order = _shuffled(rows, self._choice_seed, _SPLIT)
        return np.sort(order[held_out:]), np.sort(order[:held_out])

    def _minibatch(self, rows: Rows, index: int) -> Batch:
        raw = self._source.examples.batch(rows)
        # Neighbours may come as a view of the data, and some layers write to their inputs (an in-place dropout).
        own = copied(raw) if rows[-1] - rows[0] == len(rows) - 1 else raw
        return read_batch(own, index, keep_targets_in=self._keep_targets_in)

    def _in_order(self, rows: Rows) -> Batches:
        return Batches(self._source.examples, rows, self._source.batch_size)

    def _counts(self, rows: Rows) -> np.ndarray:
        """How many examples stand behind each row."""
        return np.ones(len(rows), np.int64) if self._sizes is None else self._sizes[rows]


def _by_number(data: Iterable[Any]) -> tuple[Batches, np.ndarray | None]:
    """The data so that any of them can be taken; where these are whole batches, with their sizes."""
    if isinstance(data, Batches):
        return held(data), None
    whole = WholeBatches(data)
    return Batches(whole, None, 1), whole.sizes


def _shuffled(rows: Rows, *key: int) -> Rows:
    shuffled: Rows = rows[torch.randperm(len(rows), generator=keyed_generator(_CPU, *key)).numpy()]
    return shuffled


def _at_least(found: int, least: int, key: str) -> None:
    if found < least:
        raise UsageError(f"found {found}, expected a whole number of at least {least}", key)
