"""Forward passes through ``torch.compile``, for those that need no graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from hessdiag.errors import MeasurementError

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem

__all__ = ["compiled"]


@contextmanager
def compiled(problem: Problem) -> Iterator[Problem]:
    """The problem with its model compiled, and compiled models let run, which :func:`exact_backends` forbids.

    A compiled graph has one derivative at most: for forward passes alone.

    Raises:
        MeasurementError: a model cannot be compiled, or there is no compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds, which only those pay who compile

    with torch.compiler.set_stance("default"):
        try:
            yield problem.compiled
        except TorchDynamoException as error:
            why = " ".join(str(error).split("\n\n")[0].split())  # what comes after is for torch's developers
            raise MeasurementError(f"compile: the model cannot be compiled ({why}): leave compile out") from error
