"""``Function.apply``, which torch does not annotate."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["apply"]


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """What ``function`` returns, recorded in the graph."""
    return function.apply(*args)  # type: ignore[no-untyped-call]
