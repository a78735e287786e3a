"""The baseline: the gradient of one minibatch, as it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from hessdiag.nso.methods.displaced import Closure, DisplacedOptimizer

__all__ = ["Plain"]


class Plain(DisplacedOptimizer):
    """w - lr g(w): the base optimizer by itself, with the interface of the other methods.

    Cost: 1 gradient a step.
    """

    def __init__(self, params: Iterable[Any], base: type[Optimizer] = torch.optim.SGD, **options: Any) -> None:
        super().__init__(params, base, {}, **options)

    gradients_per_step = 1

    def _direct(self, closure: Closure) -> Any:
        return self._evaluate(closure, clean=True)
