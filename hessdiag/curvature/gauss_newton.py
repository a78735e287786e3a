"""The split H = G + R: the Gauss-Newton part G, known by its trace, and the residual part R, known by its products.

With z the outputs, S_u S_u^T the second derivative of unit u's loss in them and c = d total / dz:

    G = (1/W) sum over units u of J_u^T S_u S_u^T J_u,    R = (1/W) sum over output elements k of c_k d^2 z_k / dw^2.

G is positive semidefinite and its trace takes a gradient where a probe of H takes a product; R is small where the
network fits its data, and has no diagonal at all where the network is piecewise linear in every single weight.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hessdiag.curvature.engines import Engine, FiniteDifferences
from hessdiag.curvature.keyed import keyed_generator
from hessdiag.curvature.operator import Split
from hessdiag.curvature.per_example import PerExample, Squares
from hessdiag.curvature.requests import GaussNewtonSums, OutputDraws
from hessdiag.errors import MeasurementError
from hessdiag.losses import OutputRoot, convex_form
from hessdiag.problem import Batch, Problem

__all__ = ["GaussNewton", "NoSplit", "TraceSamples"]

_OUTPUTS = 101  # the stream of the draws here, far from those of hessdiag.estimators.probes
_AGREES, _BF16_AGREES = 1e-3, 0.1  # of two gradients that are the same but for rounding
_NOTHING = 1e-12  # beside 1; squared it is below the last digit of a float64


class NoSplit(MeasurementError):  # noqa: N818 (a fact of the problem, and mostly no error)
    """H = G + R cannot be measured in its parts; says why."""


class GaussNewton:
    """The Gauss-Newton part of a problem's Hessian.

    Args:
        problem: whose loss is convex in the outputs.
        engine: in use for the products.

    Attributes:
        columns: how many gradients the exact trace takes, on the first batch with a valid target.

    Raises:
        NoSplit: the loss is not known to be convex, or the residual part could not be had apart.
    """

    def __init__(self, problem: Problem, engine: Engine) -> None:
        loss = convex_form(problem.loss)
        if loss is None:
            raise NoSplit("the loss is not known to be convex in the outputs")
        if isinstance(engine, FiniteDifferences):
            raise NoSplit("finite differences are no way to the residual part's products")
        self.problem, self.loss = problem, loss
        self._examples = PerExample(problem)
        self.columns = 0
        with problem.measuring():
            for batch in problem.batches():
                way, root = self.linearize(batch)
                self.columns = root.columns * len(_apart(way))
                if self.columns:
                    self._refuse_another_gradient(batch)
                    break

    def _refuse_another_gradient(self, batch: Batch) -> None:
        """The convex form has the loss's value; if it has not its gradient, it is another function of the weights."""
        if self.loss is self.problem.loss:
            return
        own, other = (p.batch_gradient(batch) for p in (self.problem, self.problem.with_loss(self.loss)))
        tolerance = _BF16_AGREES if self.problem.model_dtype is torch.bfloat16 else _AGREES
        if torch.linalg.vector_norm(own - other) > tolerance * torch.linalg.vector_norm(own):
            raise NoSplit("the outputs' normaliser does not follow the weights (look for .detach() in log_softmax)")

    @property
    def split(self) -> Split:
        """What an estimator wants to know of it."""
        return Split(True, columns=self.columns, how=self._examples.how)

    def linearize(self, batch: Batch) -> tuple[Squares, OutputRoot]:
        """One batch: squared gradient norms along directions of the outputs, and the root S of its units.

        Raises:
            NoSplit: in this batch the loss is not convex.
        """
        way = self._examples.linearize(batch)
        if not isinstance(way.outputs, Tensor) or way.outputs.ndim == 0:
            raise NoSplit(f"the model's outputs are a {type(way.outputs).__name__}, expected a tensor with dimensions")
        why = self.loss.why_not_convex(way.outputs, batch.targets)
        if why is not None:
            raise NoSplit(f"the loss is not convex in the outputs of batch {batch.index}: {why}")
        return way, self.loss.root(way.outputs, batch.targets)


class TraceSamples:
    """Tr[G] from gradients along random directions of the outputs, or from all directions in turn.

    For independent random signs e_u of every unit, the expectation of || d/dw sum_u (S_u e_u)^T z_u ||^2 over an
    example's units is the trace of its share of G: cross terms between units vanish in the mean. The data are fixed:
    the variance is that of the signs alone, from the spread of each example's draws.
    """

    def __init__(self, part: GaussNewton, request: OutputDraws) -> None:
        self._part, self._request = part, request
        groups = len(part.problem.groups)
        draws = 1 if request.exact else len(request.draws)
        self._sums = torch.zeros(draws, groups, dtype=torch.float64, device="cpu")
        self._variance = torch.zeros(groups + 1, dtype=torch.float64, device="cpu")
        self._squared_variances = 0.0

    def take(self, batch: Batch) -> int:
        """Add one batch; how many gradients of it that took."""
        way, root = self._part.linearize(batch)
        return self._take_all(way, root) if self._request.exact else self._take_draws(way, root, batch.index)

    def _take_all(self, way: Squares, root: OutputRoot) -> int:
        apart = _apart(way)
        for k in range(root.columns):
            column = root.column(k)
            for rows in apart:
                alone = torch.zeros_like(column)
                alone[rows] = column[rows]
                self._sums[0] += _squares(way, alone).sum(0).cpu()
        return root.columns * len(apart)

    def _take_draws(self, way: Squares, root: OutputRoot, batch: int) -> int:
        samples = []
        for draw in self._request.draws:
            generator = keyed_generator(way.outputs.device, self._request.seed, _OUTPUTS, draw, batch + 1)
            noise = torch.empty(way.outputs.shape, device=way.outputs.device, dtype=torch.float32)
            noise.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
            samples.append(_squares(way, root.times(noise)).cpu())
        by_draw = torch.stack(samples)  # (draws, examples, groups)
        self._sums += by_draw.sum(1)
        if len(samples) > 1:
            with_whole = torch.cat([by_draw, by_draw.sum(2, keepdim=True)], 2)
            variances = with_whole.var(0) / len(samples)
            self._variance += variances.sum(0)
            self._squared_variances += float(variances[:, -1].square().sum())
        return len(samples)

    def answer(self) -> GaussNewtonSums:
        """After the last batch."""
        weight = self._part.problem.weight
        sums = self._sums / weight
        if not bool(sums.isfinite().all()):
            raise MeasurementError(
                "a gradient along a direction of the outputs is not finite although the loss is: look for a square "
                "root, a norm or a power below 1 of something that is 0, in the model"
            )
        if self._request.exact:
            return GaussNewtonSums(sums, torch.zeros_like(self._variance), float("inf"))
        if len(sums) == 1:
            return GaussNewtonSums(sums, torch.full_like(self._variance, torch.inf), 0.0)
        return GaussNewtonSums(sums, self._variance / weight**2, self._degrees(len(sums)))

    def _degrees(self, draws: int) -> float:
        """Welch and Satterthwaite's: every example's variance is one of its own, with draws - 1 degrees."""
        whole = float(self._variance[-1])
        return (draws - 1) * whole**2 / self._squared_variances if self._squared_variances else float("inf")


def _squares(way: Squares, direction: Tensor) -> Tensor:
    """``way.squares(direction)`` without numbers so small that they add nothing.

    Where a network is sure of itself, directions range over tens of orders of magnitude, and the products of the
    smallest ones would be denormal: a hundred times slower, and wrong.
    """
    largest = float(direction.abs().max()) if direction.numel() else 0.0
    if not 0 < largest < math.inf:
        return way.squares(direction)
    scale = 2.0 ** math.floor(math.log2(largest))  # a power of two: no digit changes
    scaled = direction / scale
    return way.squares(scaled.masked_fill_(scaled.abs() < _NOTHING, 0)) * scale**2


def _apart(way: Squares) -> list[slice]:
    """The rows of the outputs that must be taken by themselves to be exact: all at once where examples are apart."""
    return [slice(None)] if way.apart else [slice(row, row + 1) for row in range(way.outputs.shape[0])]
