"""What an autograd graph is made of: operations whose second derivative torch would leave out in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

__all__ = ["custom_functions", "cut_short"]

_CUT = "torch::autograd::Error"  # what once_differentiable puts behind a gradient


def custom_functions(total: Tensor) -> list[str]:
    """A user's ``torch.autograd.Function`` classes in the graph of ``total``; their backward may hide a dependence."""
    nodes = _nodes([total])
    return sorted(
        {
            node.name().removesuffix("Backward")
            for node in nodes
            if isinstance(node, BackwardCFunction) and not _ours(node)
        }
    )


def _ours(node: BackwardCFunction) -> bool:
    function: Any = getattr(type(node), "_forward_cls", None)
    return getattr(function, "__module__", "").startswith("hessdiag.")


def cut_short(gradients: Sequence[Tensor | None]) -> bool:
    """Whether ``once_differentiable`` cuts the graph of these gradients.

    Its error is raised by ``backward`` only: ``torch.autograd.grad`` never visits it, and gives a Hessian
    from which all that lies behind it is missing.
    """
    return any(node.name() == _CUT for node in _nodes(g for g in gradients if g is not None))


def _nodes(tensors: Iterable[Tensor]) -> Iterator[Node]:
    waiting = [tensor.grad_fn for tensor in tensors]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]
