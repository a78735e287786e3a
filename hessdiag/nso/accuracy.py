"""How many of a batch's units a classifier gets right, by loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hessdiag.losses import BCEWithLogits, CausalLM, CrossEntropy, Loss, NegativeLogLikelihood
from hessdiag.problem import Problem

__all__ = ["evaluate"]


def evaluate(problem: Problem) -> tuple[float, float | None]:
    """The loss at the present weights and the share of units that are right, in evaluation mode: one forward pass.

    A unit is what the loss averages over, unweighted: an example, a valid token or pixel, an output of binary
    cross-entropy. The share is None where the loss names no classes.
    """
    total, weight, right, units = 0.0, 0.0, 0, 0
    with problem.measuring(), torch.no_grad():
        for batch in problem.batches():
            outputs = problem.outputs(batch)
            loss, count = problem.loss(outputs, batch.targets, batch.rows)
            total, weight = total + float(loss), weight + float(count)
            counts = _right(problem.loss, outputs, batch.targets)
            right, units = right + counts[0], units + counts[1]
            problem.meter.add("forward", 1)
    return total / weight, right / units if units else None


def _right(loss: Loss, outputs: Any, targets: Any) -> tuple[int, int]:
    """Units that are right, and all; nothing of a loss without classes."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return 0, 0
    if isinstance(loss, CausalLM):
        return _hits(outputs[:, :-1].argmax(2), targets[:, 1:], loss.ignore_index)
    if isinstance(loss, (CrossEntropy, NegativeLogLikelihood)):
        found = outputs.argmax(1)
        wanted = targets.argmax(1) if targets.is_floating_point() else targets.reshape(found.shape)
        return _hits(found, wanted, loss.ignore_index)
    if isinstance(loss, BCEWithLogits):
        return _hits(outputs > 0, targets.reshape(outputs.shape) > 0.5, None)
    return 0, 0


def _hits(found: Tensor, wanted: Tensor, ignored: int | None) -> tuple[int, int]:
    valid = torch.ones_like(wanted, dtype=torch.bool) if ignored is None else wanted != ignored
    return int(((found == wanted) & valid).sum()), int(valid.sum())
