"""Orthonormal vectors kept in blocks, so that more of them never means a copy of all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Rows"]

_BLOCK_BYTES = 1 << 28
_MOST_ROWS = 64  # in a block
_COLUMNS = 1 << 14  # rotated at a time


class Rows:
    """A growing matrix (m, n) of row vectors.

    Args:
        n: entries of a row.
        dtype: of the rows.
        device: of the rows.
    """

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n, self.size = n, 0
        self._blocks: list[Tensor] = []
        self._empty = torch.empty(0, n, dtype=dtype, device=device)
        self._rows = max(1, min(_MOST_ROWS, _BLOCK_BYTES // (n * dtype.itemsize), n))

    def append(self, vector: Tensor) -> None:
        """Add a row."""
        block, row = divmod(self.size, self._rows)
        if block == len(self._blocks):
            self._blocks.append(self._empty.new_empty(self._rows, self.n))
        self._blocks[block][row] = vector
        self.size += 1

    def cut(self, size: int) -> None:
        """Keep the first ``size`` rows."""
        self.size = size
        del self._blocks[-(-size // self._rows) :]

    def tensor(self) -> Tensor:
        """A copy of all, (m, n)."""
        return torch.cat([self._empty, *self._used()])

    def dot(self, vector: Tensor) -> Tensor:
        """The products of all rows with a vector (n,), (m,)."""
        return torch.cat([vector.new_empty(0), *(block @ vector for block in self._used())])

    def subtract(self, coordinates: Tensor, vector: Tensor) -> Tensor:
        """``vector`` (n,) less the combination of the rows with ``coordinates`` (m,)."""
        for block, part in zip(self._used(), torch.split(coordinates, self._rows), strict=False):
            vector = torch.addmv(vector, block.T, part, alpha=-1)
        return vector

    def combined(self, coordinates: np.ndarray) -> Tensor:
        """The combinations of the rows with the columns of ``coordinates`` (m, k), as columns (n, k)."""
        weights = torch.from_numpy(coordinates).to(self._empty)
        vectors = self._empty.new_zeros(self.n, coordinates.shape[1])
        for block, part in zip(self._used(), torch.split(weights, self._rows), strict=False):
            vectors += block.T @ part
        return vectors

    def rotate(self, coordinates: np.ndarray) -> None:
        """Put the combinations with the columns of ``coordinates`` (m, k), k <= m, in the place of the rows."""
        weights = torch.from_numpy(coordinates).to(self._empty.device).T
        for first in range(0, self.n, _COLUMNS):
            place = slice(first, first + _COLUMNS)
            rotated = weights @ torch.cat([block[:, place].double() for block in self._used()])
            for block, part in zip(self._blocks, torch.split(rotated, self._rows), strict=False):
                block[: len(part), place] = part
        self.cut(coordinates.shape[1])

    def _used(self) -> list[Tensor]:
        blocks = list(self._blocks[: -(-self.size // self._rows)])
        if blocks and self.size % self._rows:
            blocks[-1] = blocks[-1][: self.size % self._rows]
        return blocks
