"""Forward passes through ``torch.compile``, for those that need no graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hessdiag.errors import MeasurementError

__all__ = ["compiled_allowed"]


@contextmanager
def compiled_allowed() -> Iterator[None]:
    """Let compiled models run compiled, which :func:`exact_backends` forbids: a compiled graph has one derivative.

    Raises:
        MeasurementError: a model cannot be compiled, or there is no compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds, which only those pay who compile

    with torch.compiler.set_stance("default"):
        try:
            yield
        except TorchDynamoException as error:
            why = " ".join(str(error).split("\n\n")[0].split())  # what comes after is for torch's developers
            raise MeasurementError(f"compile: the model cannot be compiled ({why}): leave compile out") from error
