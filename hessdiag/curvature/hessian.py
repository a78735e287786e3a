"""The Hessian of the mean loss over the whole data, known by its products."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch

from hessdiag.cost import Cost
from hessdiag.curvature.engines import choose_engine
from hessdiag.curvature.gauss_newton import GaussNewton, NoSplit
from hessdiag.curvature.operator import Split, SymmetricOperator
from hessdiag.curvature.passes import one_pass
from hessdiag.curvature.requests import Products, Request, Served
from hessdiag.errors import UsageError
from hessdiag.memory import chunk_size, out_of_memory
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
        chunk: how many vectors to carry through one pass over the data; default: as many as memory allows. Where
            it runs out all the same, half of them are carried; no number depends on it.

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
        self._room: int | None = None  # as many vectors as went through after memory had run out
        self.engine = choose_engine(problem, engine)

    @property
    def precision(self) -> torch.dtype:
        return self.problem.model_dtype

    @property
    def engine_info(self) -> EngineInfo:
        """The engine in use, for the report."""
        return EngineInfo(self.engine.name, self.engine.relative_error)

    @functools.cached_property
    def gauss_newton(self) -> GaussNewton:
        """The Gauss-Newton part.

        Raises:
            NoSplit: there is none; says why.
        """
        return GaussNewton(self.problem, self.engine)

    @property
    def split(self) -> Split:
        try:
            return self.gauss_newton.split
        except NoSplit as reason:
            return Split(False, str(reason))

    def serve(self, requests: Sequence[Request]) -> list[Served]:
        parts = [self._parts(request) for request in requests]
        served: list[list[Served]] = [[] for _ in requests]
        with self.problem.measuring():  # around the passes, so that one which runs out of memory says so itself
            for turn in range(max(map(len, parts), default=0)):
                present = [place for place, pieces in enumerate(parts) if turn < len(pieces)]
                for place, piece in zip(present, self._pass([parts[p][turn] for p in present]), strict=True):
                    served[place].append(piece)
        return [_joined(pieces) for pieces in served]

    def _pass(self, requests: list[Request]) -> list[Served]:
        """One pass over the data; where memory runs out, two with half of the vectors each, and so on."""
        try:
            return one_pass(self, requests)
        except (RuntimeError, MemoryError) as error:
            wide = max((r.V.shape[1] for r in requests if isinstance(r, Products)), default=0)
            if not out_of_memory(error) or wide < 2:
                raise
            half = -(-wide // 2)
        self._room = min(half, self._room or half)  # later passes do not run into it again
        pieces = [_pieces(request, half) for request in requests]
        first = self._pass([parts[0] for parts in pieces])
        second = iter(self._pass([parts[1] for parts in pieces if len(parts) == 2]))
        return [
            _joined([one, next(second)] if len(parts) == 2 else [one]) for one, parts in zip(first, pieces, strict=True)
        ]

    def _parts(self, request: Request) -> list[Request]:
        """A request in pieces whose vectors fit into memory, one for each pass."""
        if not isinstance(request, Products):
            return [request]
        V = self._checked(request.V)
        # For each vector: the float64 sum, the vector, and the result.
        size = self.chunk or chunk_size(self.n * (8 + 2 * V.element_size()), max(V.shape[1], 1), self.device)
        return _pieces(replace(request, V=V), min(size, self._room or size))


def _pieces(request: Request, size: int) -> list[Request]:
    if not isinstance(request, Products):
        return [request]
    return [replace(request, V=columns) for columns in torch.split(request.V, size, dim=1)]


def _joined(pieces: list[Served]) -> Served:
    if len(pieces) == 1:
        return pieces[0]
    # As one pass would have laid it out: sums over it round alike.
    products = torch.cat([piece.answer.T for piece in pieces]).T
    return Served(products, sum((piece.cost for piece in pieces), Cost()))
