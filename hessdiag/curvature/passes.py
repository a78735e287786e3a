"""One pass over the data for many requests: a worker for each kind of request, fed batch after batch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hessdiag.cost import Cost, Kind
from hessdiag.curvature.engines import Product
from hessdiag.curvature.gauss_newton import NoSplit, TraceSamples
from hessdiag.curvature.requests import (
    BlockSquares,
    DisplacedLosses,
    Forms,
    GaussNewtonSums,
    Losses,
    OutputDraws,
    Products,
    QuadraticForms,
    Request,
    ResidualBlocks,
    ResidualDiagonal,
    Served,
)
from hessdiag.curvature.residual import BlockNorms, DiagonalSearch, linearize_residual
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.problem import Batch
from hessdiag.problem.compiled import compiled

if TYPE_CHECKING:
    from hessdiag.curvature.hessian import HessianOperator

__all__ = ["one_pass"]


def one_pass(H: HessianOperator, requests: Sequence[Request]) -> list[Served]:
    """Serve all requests while every batch is read once."""
    with H.problem.measuring():
        workers = [_worker(H, request) for request in requests]
        # Displacing the weights spoils the graphs, so those who need a graph come first.
        turns = sorted(workers, key=lambda worker: worker.displaces)
        for batch in H.problem.batches():
            graphs = Graphs(H, batch)
            for worker in turns:
                if worker.displaces:
                    graphs.drop()
                worker.take(batch, graphs)
            graphs.drop()  # they would live on beside the next batch's
        return [Served(worker.answer(), worker.cost) for worker in workers]


class Graphs:
    """One batch's linearised gradient, built when it is first asked for and shared by all workers."""

    def __init__(self, H: HessianOperator, batch: Batch) -> None:
        self._H, self._batch = H, batch
        self._product: Product | None = None
        self._residual: Product | None = None

    def product(self) -> Product:
        """The function v -> H_b v."""
        if self._product is None:
            self._product = self._H.engine.linearize(self._H.problem, self._batch)
        return self._product

    def residual(self) -> Product:
        """The function v -> R_b v."""
        if self._residual is None:
            part = self._H.gauss_newton
            self._residual = linearize_residual(part.problem, part.loss, self._H.engine, self._batch)
        return self._residual

    def drop(self) -> None:
        """Free the memory."""
        self._product = self._residual = None


class Worker(ABC):
    """Answers one request; counts what it spends."""

    displaces = False

    def __init__(self, H: HessianOperator) -> None:
        self.H, self.problem = H, H.problem
        self.batches = self.problem.data_info.batches
        self._spent: dict[Kind, int] = {}
        self._seconds = 0.0

    def take(self, batch: Batch, graphs: Graphs) -> None:
        """Work on one batch."""
        began = time.perf_counter()
        self.work(batch, graphs)
        self._seconds += time.perf_counter() - began

    @abstractmethod
    def work(self, batch: Batch, graphs: Graphs) -> None:
        """What :meth:`take` times."""

    @abstractmethod
    def answer(self) -> Any:
        """After the last batch."""

    def count(self, kind: Kind, amount: int) -> None:
        """``amount`` times one batch's work of this kind."""
        self._spent[kind] = self._spent.get(kind, 0) + amount
        self.problem.meter.add(kind, amount)

    @property
    def cost(self) -> Cost:
        """In passes over the whole data."""
        passes = {kind: spent / self.batches for kind, spent in self._spent.items()}
        return Cost(**passes, seconds=self._seconds) + Cost()


class _Products(Worker):
    def __init__(self, H: HessianOperator, request: Products) -> None:
        super().__init__(H)
        self.vectors = [row.contiguous() for row in request.V.T]
        self.sums = torch.zeros(len(self.vectors), H.n, dtype=torch.float64, device=H.device)
        sizes = [group.size for group in H.groups]
        self.stretches = [torch.split(total, sizes) for total in self.sums]

    def work(self, batch: Batch, graphs: Graphs) -> None:
        if not self.vectors:
            return
        product = graphs.product()
        for vector, stretches in zip(self.vectors, self.stretches, strict=True):
            for stretch, row in zip(stretches, product(vector), strict=True):
                if row is not None:
                    stretch += row.reshape(-1)
        self.count("hvp", len(self.vectors))

    def answer(self) -> Tensor:
        return _finite(self.sums.div_(self.problem.weight)).to(self.H.dtype).T


class _QuadraticForms(Worker):
    def __init__(self, H: HessianOperator, request: QuadraticForms) -> None:
        super().__init__(H)
        self.request = request
        shape = len(request.probes), len(H.groups)
        self.sums = torch.zeros(shape, dtype=torch.float64, device=H.device)
        self.totals = torch.zeros(shape[0], self.batches, dtype=torch.float64, device=H.device)

    def work(self, batch: Batch, graphs: Graphs) -> None:
        request = self.request
        if request.batches is not None and batch.index not in request.batches:
            return
        product = graphs.product() if request.part == "hessian" else graphs.residual()
        for place, probe in enumerate(request.probes):
            v = request.draw(probe, batch.index if request.per_batch else None).to(self.H.device, self.H.dtype)
            form = self.H.by_group(v, self.problem.flatten(product(v)))
            self.sums[place] += form
            self.totals[place, batch.index] = form.sum()
            self.count("hvp", 1)

    def answer(self) -> Forms:
        weight = self.problem.weight
        return Forms(_finite(self.sums / weight).cpu(), (self.totals / weight).cpu())


class _OutputDraws(Worker):
    def __init__(self, H: HessianOperator, request: OutputDraws) -> None:
        super().__init__(H)
        self.samples = TraceSamples(H.gauss_newton, request)
        self.refused: NoSplit | None = None

    def work(self, batch: Batch, graphs: Graphs) -> None:
        if self.refused is None:
            try:
                self.count("gradient", self.samples.take(batch))
            except NoSplit as reason:  # for its estimator: the others of this pass go on
                self.refused = reason

    def answer(self) -> GaussNewtonSums | NoSplit:
        return self.refused or self.samples.answer()


class _ResidualDiagonal(Worker):
    def __init__(self, H: HessianOperator, request: ResidualDiagonal) -> None:
        super().__init__(H)
        part = H.gauss_newton
        self.search = DiagonalSearch(part.problem, part.loss, H.engine, request.seed)

    def work(self, batch: Batch, graphs: Graphs) -> None:
        if self.search.take(batch):
            self.count("gradient", 1)

    def answer(self) -> int | None:
        return self.search.answer()


class _ResidualBlocks(Worker):
    def __init__(self, H: HessianOperator, request: ResidualBlocks) -> None:
        super().__init__(H)
        part = H.gauss_newton
        self.norms = BlockNorms(part.problem, part.loss, H.engine, request.seed)

    def work(self, batch: Batch, graphs: Graphs) -> None:
        self.count("hvp", self.norms.take(batch))

    def answer(self) -> BlockSquares:
        return BlockSquares(self.norms.answer(), self.cost.hvp)


class _DisplacedLosses(Worker):
    displaces = True

    def __init__(self, H: HessianOperator, request: DisplacedLosses) -> None:
        super().__init__(H)
        self.request = request
        self.at_weights = torch.zeros(self.batches, dtype=torch.float64, device=H.device)
        shape = len(request.probes), len(request.scales), self.batches
        self.displaced = torch.zeros(shape, dtype=torch.float64, device=H.device)
        self._shared: dict[int, Tensor] = {}

    def work(self, batch: Batch, graphs: Graphs) -> None:
        way = compiled(self.problem) if self.request.compiled else nullcontext(self.problem)
        with self.problem.displacing() as displace, torch.no_grad(), way as evaluated:
            self.at_weights[batch.index] = evaluated.batch_totals(batch)[0]
            self.count("forward", 1)
            for place, probe in enumerate(self.request.probes):
                direction = self.problem.unflatten(self._direction(probe, batch))
                for column, scale in enumerate(self.request.scales):
                    displace(direction, scale)
                    self.displaced[place, column, batch.index] = evaluated.batch_totals(batch)[0]
                self.count("forward", len(self.request.scales))

    def _direction(self, probe: int, batch: Batch) -> Tensor:
        if self.request.per_batch:
            return self.request.draw(probe, batch.index)
        if probe not in self._shared:
            self._shared[probe] = self.request.draw(probe, None)
        return self._shared[probe]

    def answer(self) -> Losses:
        weight = self.problem.weight
        return Losses((self.at_weights / weight).cpu(), (self.displaced / weight).cpu())


_WORKERS: dict[type[Request], Callable[[HessianOperator, Any], Worker]] = {
    Products: _Products,
    QuadraticForms: _QuadraticForms,
    OutputDraws: _OutputDraws,
    ResidualBlocks: _ResidualBlocks,
    ResidualDiagonal: _ResidualDiagonal,
    DisplacedLosses: _DisplacedLosses,
}


def _worker(H: HessianOperator, request: Request) -> Worker:
    if type(request) not in _WORKERS:
        raise UsageError(f"serve: found a request {type(request).__name__}, expected one of {_names()}")
    return _WORKERS[type(request)](H, request)


def _names() -> str:
    return ", ".join(kind.__name__ for kind in _WORKERS)


def _finite(sums: Tensor) -> Tensor:
    # The sum tells at a fraction of the price; finite numbers that add up to infinity get the second look.
    if not bool(sums.sum().isfinite()) and not bool(sums.isfinite().all()):
        raise MeasurementError(
            "a Hessian-vector product is not finite although the loss is: look for a square root, a norm or a power "
            "below 2 of something that is 0, in the model or the loss"
        )
    return sums
