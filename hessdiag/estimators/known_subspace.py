"""A subspace on which the operator is known: its part of the trace is exact, and the rest is left to probes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hessdiag.curvature.operator import Draw, SymmetricOperator
from hessdiag.errors import UsageError
from hessdiag.memory import chunk_size

__all__ = ["KnownSubspace", "inner"]

_ROWS = 16  # of a block, if they come by fewer
_COLUMNS = 1 << 16  # taken to float64 at a time
_ROUNDINGS = 30  # of the vectors' dtype: what is left of a product below this is rounding


class KnownSubspace:
    """Orthonormal vectors Q with their products HQ, in blocks of rows, so that growing copies little.

    With P = I - QQ^T, Tr[H] = Tr[Q^T H Q] + Tr[PHP]. By group g, with E_g the projection on its coordinates,
    Tr[E_g H] = Tr[E_g HQQ^T] + Tr[E_g HP]: the first from the rows of Q and HQ, the second the mean of
    (Pv)_g^T (HPv)_g over probes v.

    Args:
        H: the operator.
    """

    def __init__(self, H: SymmetricOperator) -> None:
        self._H = H
        self._blocks: list[tuple[Tensor, Tensor]] = []
        self.size = 0

    @classmethod
    def of(cls, H: SymmetricOperator, vectors: Tensor, products: Tensor) -> KnownSubspace:
        """From any vectors (n, k) and their products: they are made orthonormal, the products with them.

        Of converged Ritz vectors the products may be ``vectors * values``.

        Raises:
            UsageError: the shapes do not fit.
        """
        if vectors.ndim != 2 or vectors.shape[0] != H.n or vectors.shape != products.shape:
            raise UsageError(
                f"basis: found vectors of shape {tuple(vectors.shape)} and products of shape "
                f"{tuple(products.shape)}, expected ({H.n}, k) both"
            )
        known = cls(H)
        if vectors.shape[1]:
            unit, scales, turned = torch.linalg.svd(vectors.double(), full_matrices=False)
            kept = scales > _ROUNDINGS * torch.finfo(H.dtype).eps * scales[0]
            known.append(unit.T[kept], (products.double() @ (turned.T / scales)).T[kept])
        return known

    @staticmethod
    def most(H: SymmetricOperator, wanted: int) -> int:
        """How many vectors, up to ``wanted``, memory holds with their products and what it takes to add them."""
        return chunk_size(H.n * (2 * H.dtype.itemsize + 16), wanted, H.device)

    def append(self, vectors: Tensor, products: Tensor) -> None:
        """Take in orthonormal rows (k, n), orthogonal to those that are here, and their products."""
        if len(vectors):
            block = vectors.to(self._H.dtype), products.to(self._H.dtype)
            if self._blocks and len(self._blocks[-1][0]) + len(vectors) <= _ROWS:  # rows one by one would be slow
                last = self._blocks.pop()
                block = torch.cat([last[0], block[0]]), torch.cat([last[1], block[1]])
            self._blocks.append(block)
            self.size += len(vectors)

    def new_directions(self, rows: Tensor) -> Tensor:
        """An orthonormal basis (m, n) of what these rows (k, n) have outside the subspace; m < k where it is less.

        In float64 and twice over, so that of nearly dependent rows no rounding is taken for a direction.
        """
        scale = float(torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).max()) if len(rows) else 0.0
        outside = self.outside(self.outside(rows))
        Q, R = torch.linalg.qr(outside.T)
        U, sizes, _ = torch.linalg.svd(R)
        kept = sizes > _ROUNDINGS * torch.finfo(self._H.dtype).eps * scale
        # Rows scaled up from little have some of the subspace in them again.
        fresh = self.outside((Q @ U[:, kept]).T)
        Q, _ = torch.linalg.qr(fresh.T)
        directions: Tensor = Q.T.to(self._H.dtype)
        return directions

    def coordinates(self, rows: Tensor) -> Tensor:
        """Q^T v for rows v (m, n): (size, m), float64."""
        parts = [inner(vectors, rows) for vectors, _ in self._blocks]
        return torch.cat([torch.zeros(0, len(rows), dtype=torch.float64, device=rows.device), *parts])

    def product_coordinates(self, rows: Tensor) -> Tensor:
        """(HQ)^T v for rows v (m, n): (size, m), float64."""
        parts = [inner(products, rows) for _, products in self._blocks]
        return torch.cat([torch.zeros(0, len(rows), dtype=torch.float64, device=rows.device), *parts])

    def outside(self, rows: Tensor) -> Tensor:
        """(I - QQ^T) v for rows v (m, n), float64."""
        return rows.double() - self.combined(self.coordinates(rows))

    def combined(self, coordinates: Tensor) -> Tensor:
        """Rows Q c (m, n) for columns c of ``coordinates`` (size, m)."""
        return self._mixed([vectors for vectors, _ in self._blocks], coordinates)

    def combined_products(self, coordinates: Tensor) -> Tensor:
        """Rows HQ c (m, n) for columns c of ``coordinates`` (size, m)."""
        return self._mixed([products for _, products in self._blocks], coordinates)

    def deflated(self, draw: Draw) -> Draw:
        """Probes without their part in the subspace."""

        def outside(probe: int, batch: int | None) -> Tensor:
            v = draw(probe, batch).to(self._H.device, self._H.dtype)
            # In the vectors' dtype and once: what is left inside is a rounding, and the rest of H meets little of it.
            parts = [vectors.T @ (vectors @ v) for vectors, _ in self._blocks]
            return v - torch.stack(parts).sum(0)

        return outside

    def trace_by_group(self) -> Tensor:
        """Tr[E_g HQQ^T] for every group g, (groups,), float64 on the CPU."""
        total = torch.zeros(len(self._H.groups), dtype=torch.float64, device=self._H.device)
        for vectors, products in self._blocks:
            for vector, product in zip(vectors, products, strict=True):
                total += self._H.by_group(vector, product)
        return total.cpu()

    def _mixed(self, blocks: list[Tensor], coordinates: Tensor) -> Tensor:
        out = torch.zeros(coordinates.shape[1], self._H.n, dtype=torch.float64, device=self._H.device)
        parts = torch.split(coordinates, [len(block) for block in blocks]) if blocks else ()
        for block, part in zip(blocks, parts, strict=True):
            for place in _stretches(self._H.n):
                out[:, place] += part.T @ block[:, place].double()
        return out


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """The products of rows (k, n) with other rows (m, n), (k, m), in float64."""
    total = torch.zeros(len(rows), len(others), dtype=torch.float64, device=rows.device)
    for place in _stretches(rows.shape[1]):
        total += rows[:, place].double() @ others[:, place].double().T
    return total


def _stretches(n: int) -> Iterator[slice]:
    for first in range(0, n, _COLUMNS):
        yield slice(first, first + _COLUMNS)
