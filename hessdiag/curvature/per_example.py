"""Squared gradient norms of single examples, by parameter tensor, along given directions of the outputs.

| way | cost of one direction over a gradient | where |
| --- | --- | --- |
| layers | about 1: what came into a layer and the gradient of what went out | weights of layers with a rule |
| vectorised | 3 to 5: a gradient for each example through vmap | operations that torch can vectorise |
| one by one | as many gradients as examples, each of one example | inputs that can be taken apart |
| whole batches | 1, with the batch in place of the example | always: unbiased, but with more spread |

The first way that gives the same as one by one, on three examples, is taken; so a model that lays its examples out
otherwise, or mixes them, is found out.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hessdiag.curvature.contributions import Contribution, Whole, gradient, parts, squared_norms, squares
from hessdiag.curvature.examples import by_tensor, one_example, tells_examples_apart
from hessdiag.curvature.uses import Recorder, Use
from hessdiag.losses.totals import at_least_float32
from hessdiag.memory import out_of_memory
from hessdiag.problem import Batch, Problem

__all__ = ["Layers", "OneByOne", "PerExample", "Squares", "Vectorised", "WholeBatch"]

_VECTORISED = 1 << 26  # entries of gradients and outputs at a time: a network runs through vmap in few, large steps
# Between two ways to compute the same, relative, of squared norms.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1}


class Squares(Protocol):
    """One batch, linearised: outputs with their graph, and squared norms along directions of them."""

    outputs: Tensor

    @property
    def apart(self) -> bool:
        """Whether the first dimension of the outputs is the examples."""
        ...

    @property
    def how(self) -> str:
        """In words."""
        ...

    def squares(self, direction: Tensor) -> Tensor:
        """|| d<z_i, direction_i> / dw_g ||^2 for each example i and tensor g: (B, groups), float64."""
        ...


class WholeBatch:
    """The batch as one example."""

    apart = False
    how = "whole batches: their examples cannot be told apart"

    def __init__(self, problem: Problem, batch: Batch) -> None:
        self._parameters = list(problem.parameters.values())
        self.outputs: Tensor = problem.outputs(batch)

    def squares(self, direction: Tensor) -> Tensor:
        return _squares_of_one(self.outputs, self._parameters, direction)


class OneByOne:
    """Each example as a batch of its own.

    Args:
        problem: whose model it is.
        batch: the examples.
        outputs: of the whole batch.
        numbers: some of the examples; default: all.
    """

    apart = True
    how = "batches of one example"

    def __init__(self, problem: Problem, batch: Batch, outputs: Tensor, numbers: Sequence[int] | None = None) -> None:
        self.outputs = outputs
        self._problem, self._batch = problem, batch
        self._parameters = list(problem.parameters.values())
        self._numbers = range(batch.examples) if numbers is None else numbers

    def squares(self, direction: Tensor) -> Tensor:
        rows = []
        for number in self._numbers:
            output = self._problem.outputs(one_example(self._batch, number))
            rows.append(_squares_of_one(output, self._parameters, direction[number : number + 1]))
        return torch.cat(rows)

    def same_gradient(self, direction: Tensor) -> bool:
        """Whether their gradients add up to the one that the whole batch gives for the same outputs.

        Beside a large constant (a regression on years, say) outputs look the same with and without the others.
        """
        kept = torch.zeros_like(direction)
        kept[list(self._numbers)] = direction[list(self._numbers)]
        together = self._problem.flatten(_gradients(self.outputs, self._parameters, kept))
        alone = torch.zeros_like(together)
        for number in self._numbers:
            output = self._problem.outputs(one_example(self._batch, number))
            alone += self._problem.flatten(_gradients(output, self._parameters, direction[number : number + 1]))
        size, difference = (float(torch.linalg.vector_norm(x.double())) for x in (together, together - alone))
        return difference <= _TOLERANCE[self._problem.model_dtype] * size

    def same_outputs(self) -> bool:
        """Whether an example's output is the same without the others."""
        with torch.no_grad():
            for number in self._numbers:
                try:
                    alone = self._problem.outputs(one_example(self._batch, number))
                except Exception as error:  # a model that was written for one batch size
                    if out_of_memory(error):
                        raise
                    return False
                together = self.outputs[number : number + 1]
                if alone.shape != together.shape or not _close(alone, together, self._problem.model_dtype):
                    return False
        return True


class Vectorised:
    """A gradient for each example in some of the parameters, by vmap over the examples."""

    apart = True
    how = "gradients of single examples"

    def __init__(self, problem: Problem, batch: Batch, outputs: Tensor, numbers: Sequence[int] | None = None) -> None:
        names = list(problem.parameters)
        self.outputs = outputs
        self._problem, self._batch = problem, batch
        self._numbers = list(range(len(names))) if numbers is None else list(numbers)
        self.names = [names[number] for number in self._numbers]
        self._fixed = {name: p.detach() for name, p in problem.parameters.items()}

    def squares(self, direction: Tensor) -> Tensor:
        result = torch.zeros(self._batch.examples, len(self._fixed), dtype=torch.float64, device=direction.device)
        weights = {name: self._fixed[name] for name in self.names}
        entries = sum(weight.numel() for weight in weights.values()) + self.outputs[0].numel()
        each = torch.func.vmap(torch.func.grad(self._along), in_dims=(None, 0, 0))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")  # of vmap: right, only slower
            for some in parts(self._batch.examples, entries, _VECTORISED):
                inputs = by_tensor(self._batch.inputs, lambda leaf, some=some: leaf[some])  # type: ignore[misc]
                gradients = each(weights, inputs, direction[some])
                for number, name in zip(self._numbers, self.names, strict=True):
                    result[some, number] = squares(at_least_float32(gradients[name]))
        return result

    def _along(self, weights: dict[str, Tensor], inputs: object, direction: Tensor) -> Tensor:
        alone = Batch(self._batch.index, by_tensor(inputs, lambda leaf: leaf[None]), None, 1)
        outputs: Tensor = self._problem.outputs(alone, self._fixed | weights)
        return (outputs[0] * direction).sum()


class Layers:
    """From what came into the layers and the gradients of what went out; what has no rule, by vmap.

    Attributes:
        pattern: which operations used which weights, and how the examples lay in them.
        reordered: whether the model gives examples other places, as the data say: then three say nothing of others.
    """

    apart = True

    def __init__(self, problem: Problem, batch: Batch) -> None:
        self._parameters = list(problem.parameters.values())
        with Recorder(self._parameters, batch.inputs, batch.examples) as recorder:
            self.outputs: Tensor = problem.outputs(batch)
        self.reordered = recorder.reordered
        left = recorder.unknown
        self._uses = [use for use in recorder.uses if not use.roots <= left]
        self._examples = batch.examples
        self._rest = Vectorised(problem, batch, self.outputs, sorted(left)) if left else None
        self._of = [
            [use for use in self._uses if number in use.roots and number not in left]
            for number in range(len(self._parameters))
        ]
        self.pattern: Hashable = (
            tuple((use.kind, use.roots) for use in self._uses),
            frozenset(left),
            self.reordered,
            batch.examples == 1,  # in a batch of one example, any layout of examples is right
        )

    @property
    def how(self) -> str:
        """In words."""
        if self._rest is None:
            return "layers' inputs and output gradients"
        few = ", ".join(self._rest.names[:3]) + (", ..." if len(self._rest.names) > 3 else "")
        return f"layers' inputs and output gradients; by vmap for {few}"

    def squares(self, direction: Tensor) -> Tensor:
        shape = self._examples, len(self._parameters)
        result = torch.zeros(shape, dtype=torch.float64, device=self.outputs.device)
        edges = [use.output for use in self._uses]
        if edges:
            gradients = torch.autograd.grad(self.outputs, edges, direction, retain_graph=True, allow_unused=True)
            with torch.no_grad():
                made = {
                    id(use): use.contribution(g) for use, g in zip(self._uses, gradients, strict=True) if g is not None
                }
            for number, uses in enumerate(self._of):
                if present := [use for use in uses if id(use) in made]:
                    result[:, number] = self._of_parameter(number, present, [made[id(use)] for use in present])
        return result if self._rest is None else result + self._rest.squares(direction)

    def _of_parameter(self, number: int, uses: Sequence[Use], made: Sequence[Contribution]) -> Tensor:
        parameter = self._parameters[number]
        if all(use.weight is parameter for use in uses):
            with torch.no_grad():
                return squared_norms(made)
        entries = parameter.numel() + sum(use.weight.numel() for use in uses)
        rows = []
        for some in parts(self._examples, 2 * entries):
            shares: list[Contribution] = [
                _to_root(use, contribution, parameter, some) for use, contribution in zip(uses, made, strict=True)
            ]
            rows.append(squares(gradient(shares, slice(None))))
        return torch.cat(rows)


def _to_root(use: Use, contribution: Contribution, parameter: Tensor, some: slice) -> Whole:
    """What a use contributes to the gradient of a parameter that its weight is made of."""
    with torch.no_grad():
        value = contribution.gradient(some)
    if use.weight is not parameter:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            (value,) = torch.autograd.grad(
                use.weight, parameter, value.to(use.weight.dtype), retain_graph=True, is_grads_batched=True
            )
    return Whole(value, parameter.shape)


class PerExample:
    """Squared gradient norms of a problem's examples, by the first way that is right for the batch.

    What was right for one batch is taken for others whose layers use their weights in the same pattern; another
    pattern is tested anew.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._right: dict[Hashable, str] = {}
        self._said: dict[str, None] = {}

    @property
    def how(self) -> str:
        """The ways that were taken so far, in words."""
        return "; ".join(self._said)

    def linearize(self, batch: Batch) -> Squares:
        """The batch at the present weights."""
        way = self._choose(batch)
        self._said[way.how] = None
        return way

    def _choose(self, batch: Batch) -> Squares:
        if not tells_examples_apart(batch):
            return WholeBatch(self._problem, batch)
        layers = Layers(self._problem, batch)
        if not _one_output_each(layers.outputs, batch.examples):
            return WholeBatch(self._problem, batch)
        if layers.pattern not in self._right:
            self._right[layers.pattern] = self._test(layers, batch)
        match self._right[layers.pattern]:
            case "layers":
                return layers
            case "vectorised":
                return Vectorised(self._problem, batch, layers.outputs)
            case "one by one":
                return OneByOne(self._problem, batch, layers.outputs)
            case _:
                return WholeBatch(self._problem, batch)

    def _test(self, layers: Layers, batch: Batch) -> str:
        """The first way that gives what three examples give as batches of their own."""
        numbers = sorted({0, batch.examples // 2, batch.examples - 1})
        alone = OneByOne(self._problem, batch, layers.outputs, numbers)
        self._problem.meter.add("gradient", 2)
        if not alone.same_outputs():
            return "whole batches"
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, layers.outputs.shape, generator=generator, device="cpu") * 2 - 1
        direction = signs.to(layers.outputs.device, layers.outputs.dtype)
        if not alone.same_gradient(direction):
            return "whole batches"
        expected = alone.squares(direction)
        if not layers.reordered and self._agree(layers, direction, numbers, expected):
            return "layers"
        vectorised = Vectorised(self._problem, batch, layers.outputs)
        return "vectorised" if self._agree(vectorised, direction, numbers, expected) else "one by one"

    def _agree(self, way: Squares, direction: Tensor, numbers: Sequence[int], expected: Tensor) -> bool:
        try:
            found = way.squares(direction)[numbers]
        except Exception as error:  # whatever a model says to tensors of function transforms
            if out_of_memory(error):
                raise
            return False
        tolerance = _TOLERANCE[self._problem.model_dtype]
        # A gradient that is zero on paper (attention's key bias) is all rounding.
        rounding = 10 * torch.finfo(self._problem.model_dtype).eps * expected.sum(1, keepdim=True)
        return bool(((found - expected).abs() <= tolerance * expected + rounding).all())


def _one_output_each(outputs: object, examples: int) -> bool:
    return isinstance(outputs, Tensor) and outputs.ndim > 0 and outputs.shape[0] == examples and outputs.requires_grad


def _squares_of_one(output: Tensor, parameters: Sequence[Tensor], direction: Tensor) -> Tensor:
    """The squared norms of one gradient, (1, groups)."""
    gradients = _gradients(output, parameters, direction)
    norms = [direction.new_zeros(1) if g is None else squares(at_least_float32(g)[None]) for g in gradients]
    return torch.stack([norm.double() for norm in norms], 1)


def _gradients(output: Tensor, parameters: Sequence[Tensor], direction: Tensor) -> Sequence[Tensor | None]:
    if not output.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(output, parameters, direction, retain_graph=True, allow_unused=True)


def _close(alone: Tensor, together: Tensor, dtype: torch.dtype) -> bool:
    tolerance = _TOLERANCE[dtype] / 10
    finite = together[together.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(alone, together, rtol=tolerance, atol=tolerance * size, equal_nan=True)
