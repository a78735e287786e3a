"""Examples that are slow to read by number, held in memory as arrays where they are arrays and fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hessdiag.loading.datasets.arrays import ArrayExamples
from hessdiag.loading.datasets.examples import Batches, Rows
from hessdiag.loading.datasets.pixels import ImageExamples
from hessdiag.loading.datasets.records import RecordExamples
from hessdiag.loading.datasets.tokens import TOKENS
from hessdiag.memory import available_memory
from hessdiag.nso.whole_batches import refuse_what_changes

__all__ = ["held"]

_SHARE = 0.25  # of the free memory, as a problem keeps its batches
_AT_HAND = (ArrayExamples, ImageExamples)  # of which a minibatch is one look-up


def held(data: Batches) -> Batches:
    """The same examples in the same order, read once and then taken from memory; ``data`` where that cannot be.

    By number, a minibatch at random would decode its pictures and parse its lines anew in every epoch, and of a
    Parquet file every group of rows. Texts are left, since each minibatch is padded to the longest of its own, and so
    are graphs.

    Raises:
        DataError: an example cannot be read, or is another each time.
    """
    if isinstance(data.examples, _AT_HAND):
        return data
    count = len(data.examples) if data.rows is None else len(data.rows)
    parts: list[list[Any]] = []
    form: Any = None
    for start, raw in zip(range(0, count, data.batch_size), data, strict=True):
        leaves, found = pytree.tree_flatten(raw)
        rows = min(data.batch_size, count - start)
        if not all(leaf is None or _is_rows(leaf, rows) for leaf in leaves):
            return data
        if not parts and (_is_padded(data, raw) or not _fits(leaves, rows, count)):
            return data
        if parts and (found != form or list(map(_kind, leaves)) != list(map(_kind, parts[0]))):
            return data
        parts.append(leaves)
        form = found
    if not parts:
        return data
    refuse_what_changes(data, pytree.tree_unflatten(parts[0], form))
    columns = [None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)]
    return Batches(_HeldExamples(columns, form, count), None, data.batch_size)


class _HeldExamples:
    """Examples by number, of columns whose first axis counts them; a batch has the form in which they were read."""

    def __init__(self, columns: Sequence[Tensor | None], form: Any, count: int) -> None:
        self._columns, self._form, self._count = columns, form, count

    def __len__(self) -> int:
        return self._count

    def batch(self, rows: Rows) -> Any:
        """The rows of every column."""
        chosen = torch.from_numpy(rows)
        leaves = [None if column is None else column[chosen] for column in self._columns]
        return pytree.tree_unflatten(leaves, self._form)


def _is_rows(leaf: Any, rows: int) -> bool:
    strided = isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.device.type == "cpu"
    return strided and leaf.ndim > 0 and len(leaf) == rows


def _kind(leaf: Tensor | None) -> Any:
    return None if leaf is None else (leaf.dtype, leaf.shape[1:])


def _is_padded(data: Batches, raw: Any) -> bool:
    return isinstance(data.examples, RecordExamples) and isinstance(raw[0], Mapping) and TOKENS in raw[0]


def _fits(leaves: Sequence[Tensor | None], rows: int, count: int) -> bool:
    """Whether all examples will fit, by the first few."""
    nbytes = sum(leaf.nbytes for leaf in leaves if leaf is not None)
    return nbytes / rows * count <= _SHARE * available_memory(torch.device("cpu"))
