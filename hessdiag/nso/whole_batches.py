"""Batches that a user's function made, held in memory, so that they can be taken in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError, HessdiagError
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.room import check_room
from hessdiag.loading.references import described
from hessdiag.memory import out_of_memory
from hessdiag.problem.batches import Fingerprint, read_batch
from hessdiag.problem.structure import holds_tensors, moved_object

__all__ = ["WholeBatches", "copied", "refuse_what_changes"]


class WholeBatches:
    """Batches of which one is read at a time: a dataset (:class:`Examples`) whose every example is a whole batch.

    They are read once, and copied: a loader may fill one buffer again and again.

    Args:
        data: the batches.

    Attributes:
        sizes: the count of examples in each, shape (batches,), int64.

    Raises:
        DataError: there are none, they cannot be read, do not fit into memory, or change from one pass to the next.
    """

    def __init__(self, data: Iterable[Any]) -> None:
        self._held: list[Any] = []
        sizes: list[int] = []
        try:
            for index, raw in enumerate(data):
                batch = read_batch(raw, index, keep_targets_in=True)
                check_room(
                    batch.nbytes(),
                    f"data: batch {index}, held with those before it so that they can be shuffled,",
                    "let the function return a Dataset, whose examples are read when their turn comes",
                )
                self._held.append(copied(raw))
                sizes.append(batch.examples)
            if self._held:
                refuse_what_changes(data, self._held[0])
        except (HessdiagError, MemoryError):
            raise
        except Exception as error:  # whatever a user's data set raises
            if out_of_memory(error):
                raise
            place = len(self._held)
            raise DataError(f"the data could not be read, at batch {place}: {described(error)}") from error
        if not self._held:
            raise DataError("the data hold no batches, expected at least one")
        self.sizes = np.array(sizes, np.int64)

    def __len__(self) -> int:
        return len(self._held)

    def batch(self, rows: Rows) -> Any:
        """The one batch of ``rows``."""
        (row,) = rows
        return self._held[row]


def refuse_what_changes(data: Iterable[Any], first: Any) -> None:
    """Read the first batch again: of random data, what is held would be one draw for the whole run.

    Raises:
        DataError: it is not ``first`` any more.
    """
    found = [Fingerprint(), Fingerprint()]
    for fingerprint, raw in zip(found, (first, next(iter(data))), strict=True):
        fingerprint.add(read_batch(raw, 0, keep_targets_in=True))
    if found[0].digest() != found[1].digest():
        raise DataError(
            "the data change from one pass to the next (random augmentation, or shuffling), expected the same batches "
            "again: turn that off; training draws an order of its own, and train.augment crops and flips"
        )


def copied(item: Any) -> Any:
    """What the data gave as one batch, in memory of its own."""
    # copy.deepcopy would copy all that a tensor is a view of, as of one that was split into batches.
    if isinstance(item, Tensor):
        return item.detach().clone()
    if isinstance(item, np.ndarray):
        return item.copy()
    if isinstance(item, Mapping):
        return {name: copied(value) for name, value in item.items()}
    if isinstance(item, (tuple, list)):
        return tuple(copied(value) for value in item)
    return moved_object(item, torch.device("cpu"), copied) if holds_tensors(item) else item
