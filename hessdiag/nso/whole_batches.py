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
from hessdiag.problem.batches import read_batch
from hessdiag.problem.structure import holds_tensors, moved_object

__all__ = ["WholeBatches", "copied"]


class WholeBatches:
    """Batches of which one is read at a time: a dataset (:class:`Examples`) whose every example is a whole batch.

    They are read once, and copied: a loader may fill one buffer again and again.

    Args:
        data: the batches.

    Attributes:
        sizes: the count of examples in each, shape (batches,), int64.

    Raises:
        DataError: there are none, they cannot be read, or they do not fit into memory.
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
