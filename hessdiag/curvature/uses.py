"""Which layers use which weights: seen while the model runs, so that per-example gradients need no second model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from hessdiag.curvature.contributions import Contribution
from hessdiag.curvature.layers import EXPANDING, RULES, Part
from hessdiag.curvature.reordering import reorders
from hessdiag.problem.structure import leaves

__all__ = ["Recorder", "Use"]

_MARK = "_hessdiag_from_data"


@dataclass(frozen=True)
class Use:
    """One use of a weight.

    Attributes:
        weight: a selected parameter, or a tensor made of such alone.
        roots: the numbers of the parameters that it is, or is made of.
        output: where the gradient of what went out is taken.
        contribution: what the use adds to the weight's gradient, from that gradient.
        kind: the operation, and how the examples lie in its rows.
    """

    weight: Tensor
    roots: frozenset[int]
    output: GradientEdge
    contribution: Callable[[Tensor], Contribution]
    kind: str


class Recorder(TorchFunctionMode):
    """Notes the uses of weights while it is entered; computes nothing else than what the model does.

    Tensors are told apart by where they come from: from the data (they carry a mark), or from selected parameters
    alone, as a transposed weight or the embedding of positions. Where both meet, a weight is used.

    Args:
        parameters: the selected ones.
        data: the batch's inputs.
        examples: how many there are in them.

    Attributes:
        uses: in the order of the forward pass.
        unknown: numbers of the parameters with a use that no rule describes.
        reordered: whether examples were given other places, as the data say.
    """

    def __init__(self, parameters: Sequence[Tensor], data: Any, examples: int) -> None:
        super().__init__()
        self.examples = examples
        self.uses: list[Use] = []
        self.unknown: set[int] = set()
        self.reordered = False
        # With the tensors, so that no other one takes their place under the same number.
        self._made: dict[int, tuple[Tensor, frozenset[int]]] = {
            id(p): (p, frozenset([number])) for number, p in enumerate(parameters)
        }
        self._data = [leaf for _, leaf in leaves(data) if isinstance(leaf, Tensor)]

    def __enter__(self) -> Recorder:
        for tensor in self._data:
            setattr(tensor, _MARK, True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for tensor in self._data:
            if hasattr(tensor, _MARK):  # the same tensor may be there twice
                delattr(tensor, _MARK)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        weights = [tensor for tensor in given if id(tensor) in self._made]
        from_data = any(hasattr(tensor, _MARK) for tensor in given)
        parts = self._parts(func, args, kwargs, weights, from_data) if weights and torch.is_grad_enabled() else None
        if from_data and not weights and not self.reordered:
            self.reordered = reorders(func, args, kwargs, lambda tensor: hasattr(tensor, _MARK), self.examples)
        result = func(*args, **kwargs)
        made = [tensor for tensor in _tensors(result) if tensor.requires_grad] if weights else []
        if parts is not None:
            self._note(func, parts, weights, made)
        elif made and not from_data and not _writes(func):
            roots = frozenset[int]().union(*(self._made[id(weight)][1] for weight in weights))
            self._made |= {id(tensor): (tensor, roots) for tensor in made}
        elif made or (weights and _writes(func)):
            self.unknown.update(*(self._made[id(weight)][1] for weight in weights))
        if from_data or parts is not None:
            for tensor in _tensors((result, args[:1] if _writes(func) else ())):
                setattr(tensor, _MARK, True)
        return result

    def _parts(self, func: Any, args: Any, kwargs: Any, weights: list[Tensor], from_data: bool) -> list[Part] | None:
        """What a rule says of this call; None where there is none that fits."""
        rule = (RULES if from_data else EXPANDING).get(func)
        if rule is None:
            return None
        try:
            inspect.signature(rule).bind(self.examples, *args, **kwargs)
        except TypeError:
            return None
        parts = rule(self.examples, *args, **kwargs)
        if parts is None or any(all(part.weight is not weight for part in parts) for weight in weights):
            return None
        return parts

    def _note(self, func: Any, parts: list[Part], weights: list[Tensor], made: list[Tensor]) -> None:
        if not made:
            return
        edge = get_gradient_edge(made[0])  # now: an operation in place would put another one there
        for part in parts:
            if part.weight is not None and id(part.weight) in self._made:
                weight, roots = self._made[id(part.weight)]
                self.uses.append(Use(weight, roots, edge, part.contribution, f"{func.__name__} {part.layout}"))


def _writes(func: Any) -> bool:
    """Whether a call changes its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _tensors(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, dict):
        for value in item.values():
            yield from _tensors(value)
    elif isinstance(item, (tuple, list)):
        for value in item:
            yield from _tensors(value)
