"""Examples by number, and the batches made of them: in order, read anew for each pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["Batches", "Examples", "Rows", "choose_subset"]

Rows = np.ndarray
"""Numbers of examples, shape (B,), int64, ascending."""


@runtime_checkable
class Examples(Protocol):
    """A dataset that gives any of its examples as one batch. It holds in memory no more than it must."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, rows: Rows) -> Any:
        """The examples ``rows`` as ``(inputs, targets)``, or as a mapping with the targets in it."""
        ...


class Batches:
    """A re-iterable of batches, never shuffled.

    Args:
        examples: the dataset.
        rows: which of them, in their order; None: all.
        batch_size: examples in a batch; the last one may have fewer.
    """

    def __init__(self, examples: Examples, rows: Rows | None, batch_size: int) -> None:
        self.examples, self.rows, self.batch_size = examples, rows, batch_size

    def __iter__(self) -> Iterator[Any]:
        count = len(self.examples) if self.rows is None else len(self.rows)
        for start in range(0, count, self.batch_size):
            end = min(start + self.batch_size, count)
            # All row numbers at once would take as much memory as a column of a table that is read piecewise.
            yield self.examples.batch(np.arange(start, end) if self.rows is None else self.rows[start:end])


def choose_subset(examples: int, wanted: int | None, seed: int) -> Rows | None:
    """Row numbers of a random subset in ascending order, or None for all."""
    if wanted is None or wanted >= examples:
        return None
    return np.sort(np.random.default_rng(seed).choice(examples, wanted, replace=False))
