"""One field of all records: read, and made a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.fields import DTYPES, read_field

__all__ = ["Column", "Records", "open_columns"]


class Records(Protocol):
    """Records by number, each a mapping from the names of its fields to plain Python values."""

    shown: str

    def __len__(self) -> int:
        """How many there are."""
        ...

    def names(self) -> Sequence[str]:
        """The fields of the first record."""
        ...

    def take(self, rows: Rows, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The records ``rows``, one after the other, with those of the fields ``names`` that they have."""
        ...

    def kinds(self, names: Sequence[str]) -> Mapping[str, str]:
        """Of fields of numbers, the kind that holds them in every record: a key of ``DTYPES``."""
        ...

    def place(self, row: int) -> str:
        """Where a record stands, for messages."""
        ...


@dataclass(frozen=True)
class Column:
    """A field that the spec names.

    Args:
        name: of the field.
        read: what is made of a value; raises UnfitError.
        place: where a record stands, for messages.
        shape: of the first record's value.
        kind: of the numbers in all records, a key of ``DTYPES``; None of texts and words.
    """

    name: str
    read: Callable[[Any], Any]
    place: Callable[[int], str]
    shape: tuple[int, ...] = ()
    kind: str | None = None

    def value(self, record: Mapping[str, Any], row: int) -> Any:
        """What stands in the record ``row``.

        Raises:
            DataError: it is missing, or not what is expected.
        """
        value = read_field(record, self.name, self.read, partial(self.place, row))
        # Never from real to whole, should the file have changed meanwhile.
        return value if self.kind is None else value.astype(DTYPES[self.kind], casting="same_kind")

    def stacked(self, values: Sequence[Any], rows: Rows) -> Tensor:
        """Values of one shape, (B, *shape).

        Raises:
            DataError: one has another shape than the first record's.
        """
        for row, value in zip(rows, values, strict=True):
            if np.shape(value) != self.shape:
                raise self.unfit(row, f"is of shape {np.shape(value)}, expected {self.shape}, as in the first record")
        return torch.from_numpy(np.stack(values))

    def padded(self, values: Sequence[Any], rows: Rows, lengths: Sequence[int], fill: int) -> Tensor:
        """Lists with a number for each token, (B, T), ``fill`` after their ends; other values are stacked.

        Raises:
            DataError: a list has another length than its tokens.
        """
        shapes = [np.shape(value) for value in values]
        aligned = [shape == (length,) for shape, length in zip(shapes, lengths, strict=True)]
        if not all(aligned):
            if all(shape == self.shape for shape in shapes):
                return torch.from_numpy(np.stack(values))
            wrong = aligned.index(False)
            raise self.unfit(rows[wrong], f"is of shape {shapes[wrong]}, expected ({lengths[wrong]},), as its tokens")
        whole = np.full((len(values), max(lengths)), fill, values[0].dtype)
        for line, value in zip(whole, values, strict=True):
            line[: len(value)] = value
        return torch.from_numpy(whole)

    def unfit(self, row: int, reason: str) -> DataError:
        """The error for one record."""
        return DataError(f"{self.place(row)}: field {self.name!r} {reason}")


def open_columns(records: Records, readers: Sequence[tuple[str, Callable[[Any], Any]]]) -> list[Column]:
    """Columns by name and reader, with the shapes of the first record and the kinds that hold every one.

    Raises:
        DataError: the first record does not hold what is expected.
    """
    columns = [Column(name, read, records.place) for name, read in readers]
    (first,) = records.take(np.arange(1), [name for name, _ in readers])
    values = [column.value(first, 0) for column in columns]
    kinds = records.kinds([c.name for c, value in zip(columns, values, strict=True) if isinstance(value, np.ndarray)])
    return [
        Column(c.name, c.read, c.place, np.shape(value), kinds[c.name] if isinstance(value, np.ndarray) else None)
        for c, value in zip(columns, values, strict=True)
    ]
