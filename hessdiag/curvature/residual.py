"""The residual part R of H = G + R: its products, and whether it has a diagonal."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.engines import Engine, Product
from hessdiag.curvature.examples import some_examples, tells_examples_apart
from hessdiag.curvature.keyed import keyed_generator
from hessdiag.losses import ConvexLoss
from hessdiag.losses.totals import Totals, at_least_float32
from hessdiag.memory import out_of_memory
from hessdiag.problem import Batch, Problem

__all__ = ["BlockNorms", "DiagonalSearch", "linearize_residual"]

_DIAGONAL = 102  # the stream of the vectors here, far from those of hessdiag.estimators.probes
_EXAMPLES = 8  # whether a network is piecewise linear shows on a few of them


@dataclass(frozen=True)
class _LinearLoss:
    """<c, z>: its second derivative in the weights is sum_k c_k d^2 z_k / dw^2."""

    slopes: Tensor

    def __call__(self, outputs: Any, targets: Any, examples: int) -> Totals:
        total = (at_least_float32(outputs) * self.slopes).sum(dtype=torch.float64)
        return total, torch.ones_like(total)

    def check(self, outputs: Any, targets: Any) -> None:
        """It takes any outputs."""


def linearize_residual(problem: Problem, loss: ConvexLoss, engine: Engine, batch: Batch) -> Product:
    """The function v -> R_b v at the present weights, by the engine's own second derivative of <c, z>.

    No difference of large numbers is taken: c is held fixed, and G never appears.

    Args:
        problem: of which ``loss`` is the convex form.
        loss: convex in the outputs.
        engine: that differentiates twice.
        batch: one of the problem's.
    """
    return _of_slopes(problem, slopes(problem, loss, batch), engine, batch).product


def slopes(problem: Problem, loss: ConvexLoss, batch: Batch) -> Tensor:
    """C = d total / dz of one batch, in at least float32 and without graph."""
    with torch.no_grad():
        outputs = at_least_float32(problem.outputs(batch))
    outputs = outputs.detach().requires_grad_()
    total, _ = loss(outputs, batch.targets, batch.rows)
    (found,) = torch.autograd.grad(total, outputs)
    return found


@dataclass(frozen=True)
class _Part:
    """R of some examples."""

    linear: Problem
    batch: Batch
    product: Product

    def uses(self, number: int) -> bool:
        """Whether the outputs depend on this tensor."""
        sizes = [group.size for group in self.linear.groups]
        return bool(torch.split(self._gradient, sizes)[number].any())

    @functools.cached_property
    def _gradient(self) -> Tensor:
        return self.linear.batch_gradient(self.batch)


def _of_slopes(problem: Problem, c: Tensor, engine: Engine, batch: Batch) -> _Part:
    linear = problem.with_loss(_LinearLoss(c))
    return _Part(linear, batch, engine.linearize(linear, batch))


class DiagonalSearch:
    """Looks for a parameter tensor g whose diagonal block R_gg is not zero, batch after batch.

    Where a network is piecewise linear in every single tensor (rectifiers, pooling, BatchNorm in evaluation mode)
    there is none, and Tr[H] = Tr[G]. For a Gaussian v on g alone (R v)_g is nothing but rounding then, beside the
    rest of R v. A few examples show it: those of a batch on which the loss's slope is largest; where a tensor has no
    say in them (the branch of rare examples), the whole batch, and the next ones. The tensors are spread over the
    batches.
    """

    def __init__(self, problem: Problem, loss: ConvexLoss, engine: Engine, seed: int) -> None:
        self._problem, self._loss, self._engine, self._seed = problem, loss, engine, seed
        self._waiting = list(range(len(problem.groups)))
        self._share = -(-len(self._waiting) // problem.data_info.batches)
        self._found: int | None = None
        self._all_flat = True

    def take(self, batch: Batch) -> bool:
        """Look at some tensors on one batch; whether there was work to do."""
        if self._found is not None or not self._waiting:
            return False
        few = _on_few_examples(self._problem, self._loss, self._engine, batch)
        if few is None:
            return True
        self._all_flat = False
        last = batch.index == self._problem.data_info.batches - 1
        count = len(self._waiting) if last else min(self._share, len(self._waiting))
        now, self._waiting = self._waiting[:count], self._waiting[count:]
        unused = self._look(few, now)
        if unused and self._found is None:  # by these examples; others of the batch may take another branch
            whole = _of_slopes(self._problem, slopes(self._problem, self._loss, batch), self._engine, batch)
            self._waiting += self._look(whole, unused)
        return True

    def answer(self) -> int | None:
        """The number of a tensor with a diagonal block, or of one that could not be looked at; None: there is none."""
        if self._found is None and self._waiting and not self._all_flat:
            return self._waiting[0]
        return self._found

    def _look(self, part: _Part, numbers: list[int]) -> list[int]:
        """Look at some tensors; which of them have no say in the outputs of these examples."""
        unused = []
        for number in numbers:
            norms = _column_norms(self._problem, part.product, number, self._seed)
            tolerance = min(1e3 * torch.finfo(self._problem.model_dtype).eps, 0.05)
            if norms[number] > tolerance * max(norms):
                self._found = number
                break
            if not any(norms) and not part.uses(number):
                unused.append(number)
        return unused


class BlockNorms:
    """||R_gh||_F^2 of all pairs of parameter tensors, as far as a few examples show it.

    For v of unit variance on h alone || (R v)_g ||^2 is an estimate of it. The tensors are spread over the batches,
    and of a batch the examples are taken on which the loss's slope is largest: enough to plan by.
    """

    def __init__(self, problem: Problem, loss: ConvexLoss, engine: Engine, seed: int) -> None:
        self._problem, self._loss, self._engine, self._seed = problem, loss, engine, seed
        count = len(problem.groups)
        self._waiting = list(range(count))
        self._share = -(-count // problem.data_info.batches)
        self._squares = torch.zeros(count, count, dtype=torch.float64, device="cpu")

    def take(self, batch: Batch) -> int:
        """Look at some tensors on one batch; for how many products with all of it that counts, rounded up."""
        if not self._waiting:
            return 0
        few = _on_few_examples(self._problem, self._loss, self._engine, batch)
        if few is None:
            return 1
        now = self._waiting[: self._share]
        for number in now:
            norms = _column_norms(self._problem, few.product, number, self._seed)
            self._squares[:, number] = torch.tensor(norms, dtype=torch.float64, device="cpu").square()
        del self._waiting[: self._share]
        return math.ceil((len(now) + 1) * few.batch.examples / batch.examples)

    def answer(self) -> Tensor:
        """(groups, groups), float64 on the CPU; a tensor that could not be looked at has a column of zeros."""
        return self._squares


def _on_few_examples(problem: Problem, loss: ConvexLoss, engine: Engine, batch: Batch) -> _Part | None:
    """R of the batch's steepest examples; None where the loss has no slope at all."""
    c = slopes(problem, loss, batch)
    if not bool(c.any()):
        return None
    if tells_examples_apart(batch) and len(c) == batch.examples:
        steepest = torch.argsort(c.reshape(len(c), -1).square().sum(1), descending=True, stable=True)[:_EXAMPLES]
        few = some_examples(batch, steepest)
        if _runs(problem, few):
            batch, c = few, c[steepest]
    return _of_slopes(problem, c, engine, batch)


def _runs(problem: Problem, few: Batch) -> bool:
    """Whether the model takes so few examples; some are written for one batch size."""
    try:
        with torch.no_grad():
            return len(problem.outputs(few)) == few.examples
    except Exception as error:  # whatever the model says
        if out_of_memory(error):
            raise
        return False


def _column_norms(problem: Problem, product: Product, number: int, seed: int) -> list[float]:
    """|| (R v)_g || of every tensor g, for a Gaussian v on tensor ``number`` alone."""
    v = torch.zeros(problem.n, dtype=problem.dtype, device=problem.device)
    place = torch.split(v, [group.size for group in problem.groups])[number]
    generator = keyed_generator(v.device, seed, _DIAGONAL, number)
    place.copy_(torch.empty_like(place, dtype=torch.float32).normal_(generator=generator))
    return [0.0 if row is None else float(torch.linalg.vector_norm(row.double())) for row in product(v)]
