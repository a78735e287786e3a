"""The Hessian of the mean loss over the whole data, known by its products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hessdiag.curvature.engines import choose_engine
from hessdiag.curvature.operator import Draw, SymmetricOperator
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.memory import chunk_size
from hessdiag.problem import Problem
from hessdiag.results import EngineInfo

__all__ = ["HessianOperator"]


class HessianOperator(SymmetricOperator):
    """H = (1/W) sum over batches b of d^2 total_b / dw^2, with W the loss's denominator over the whole data.

    H does not depend on how the data are split into batches or ordered. Batches are the outer loop and
    vectors the inner one: a batch's first-order graph is built once for all vectors of a chunk. Products are
    summed over batches in float64.

    Args:
        problem: what to differentiate.
        engine: ``auto`` (the first that works), ``reverse-over-reverse``, ``forward-over-reverse`` or
            ``finite-differences``.
        chunk: how many vectors to carry through one pass over the data; default: as many as memory allows.

    Raises:
        MeasurementError: the loss has no second derivative that any engine can give.
    """

    def __init__(self, problem: Problem, *, engine: str = "auto", chunk: int | None = None) -> None:
        if chunk is not None and chunk < 1:
            raise UsageError(f"chunk: found {chunk}, expected at least 1")
        self.problem = problem
        self.n, self.dtype, self.device = problem.n, problem.dtype, problem.device
        self.groups, self.meter = problem.groups, problem.meter
        self.chunk = chunk
        self.engine = choose_engine(problem, engine)

    @property
    def engine_info(self) -> EngineInfo:
        """The engine in use, for the report."""
        return EngineInfo(self.engine.name, self.engine.relative_error)

    def matmat(self, V: Tensor) -> Tensor:
        V = self._checked(V)
        # For each vector: the float64 sum, the vector, and the result.
        size = self.chunk or chunk_size(self.n * (8 + 2 * V.element_size()), V.shape[1], self.device)
        with self.problem.measuring():
            parts = [self._chunk_products(chunk) for chunk in torch.split(V.T, size)]
        return torch.cat(parts).T if parts else V.clone()

    def _chunk_products(self, rows: Tensor) -> Tensor:
        """Products with the rows of a (k, n) tensor, one pass over the data."""
        sums = torch.zeros(rows.shape, dtype=torch.float64, device=self.device)
        vectors = [row.contiguous() for row in rows]
        for batch in self.problem.batches():
            product = self.engine.linearize(self.problem, batch)
            for place, vector in enumerate(vectors):
                sums[place] += product(vector)
            self.meter.add("hvp", len(vectors))
            del product  # its graph would live on beside the next batch's
        return _finite(sums / self.problem.weight).to(self.dtype)

    def quadratic_forms(self, draw: Draw, probes: Sequence[int], *, per_batch: bool = True) -> Tensor:
        with self.problem.measuring():
            sums = torch.zeros(len(probes), len(self.groups), dtype=torch.float64, device=self.device)
            for batch in self.problem.batches():
                product = self.engine.linearize(self.problem, batch)
                for place, probe in enumerate(probes):
                    v = draw(probe, batch.index if per_batch else None).to(self.device, self.dtype)
                    sums[place] += self._by_group(v, product(v))
                    self.meter.add("hvp", 1)
                del product  # as above
        return _finite(sums / self.problem.weight).cpu()


def _finite(sums: Tensor) -> Tensor:
    if not bool(sums.isfinite().all()):
        raise MeasurementError(
            "a Hessian-vector product is not finite although the loss is: look for a square root, a norm or a power "
            "below 2 of something that is 0, in the model or the loss"
        )
    return sums
