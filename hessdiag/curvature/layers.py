"""What layers add to the gradients of their weights, for each example: one rule for each of torch's operations.

A rule bears the signature of its operation, after the number B of examples, and says of each weight in it what it
contributes to that weight's gradient, from the gradient of what comes out. Examples are taken to be the first
dimension of what comes in ("rows"), or stretches of it ("blocks": tokens laid end to end, or pictures of a film);
whether they are is tested where the rules are used. A rule gives None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hessdiag.curvature.contributions import Contribution, Lookup, Outer, Patches, Whole
from hessdiag.losses.totals import at_least_float32

__all__ = ["EXPANDING", "RULES", "Part"]


@dataclass(frozen=True)
class Part:
    """A weight of an operation, what it contributes given the gradient of the output, and how examples lie there."""

    weight: Tensor | None
    contribution: Callable[[Tensor], Contribution]
    layout: str


Parts = list[Part] | None


def _layout(examples: int, x: Tensor) -> str | None:
    if x.ndim == 0 or x.shape[0] == 0 or x.shape[0] % examples:
        return None
    return "rows" if x.shape[0] == examples else "blocks"


def _rows(x: Tensor, examples: int) -> Tensor:
    """(B, T, features) from (..., features)."""
    return at_least_float32(x.detach()).reshape(examples, -1, x.shape[-1])


def _summed_to(g: Tensor, shape: torch.Size, examples: int) -> Tensor:
    """Sum (B m, ...) over all that ``shape`` was broadcast along, except the examples: (B, *shape)."""
    g = at_least_float32(g).reshape(examples, -1, *g.shape[1:])
    kept = (1,) * (g.ndim - 1 - len(shape)) + tuple(shape)
    over = [1, *(2 + d for d, size in enumerate(kept[1:]) if size == 1)]
    return g.sum(over).reshape(examples, *shape)


def _products(weight: Tensor, left: Tensor, right: Tensor) -> Outer:
    """Of (B, T, o) and (B, T, i)."""
    return Outer(left[:, None], right[:, None], weight.shape)


def _bias(bias: Tensor | None, layout: str, examples: int) -> Part:
    return Part(bias, lambda g: Whole(_rows(g, examples).sum(1), torch.Size(g.shape[-1:])), layout)


def _linear(examples: int, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Parts:
    layout = _layout(examples, input)
    if layout is None or input.ndim < 2 or weight.ndim != 2:
        return None
    return [
        Part(weight, lambda g: _products(weight, _rows(g, examples), _rows(input, examples)), layout),
        _bias(bias, layout, examples),
    ]


def _matmul(examples: int, input: Tensor, other: Tensor) -> Parts:
    layout = _layout(examples, input)
    if layout is None or input.ndim < 2 or other.ndim > 2:
        return None

    def contribution(g: Tensor) -> Contribution:
        x = _rows(input, examples)
        if other.ndim == 1:
            return Whole((x * _rows(g[..., None], examples)).sum(1), other.shape)
        return _products(other, x, _rows(g, examples))

    return [Part(other, contribution, layout)]


def _addmm(examples: int, input: Tensor, mat1: Tensor, mat2: Tensor) -> Parts:
    parts = _matmul(examples, mat1, mat2)
    if parts is None or input.ndim != 1:
        return None
    return [*parts, _bias(input, parts[0].layout, examples)]


def _embedding(
    examples: int,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Parts:
    layout = _layout(examples, input)
    if layout is None or max_norm is not None or scale_grad_by_freq:
        return None
    ids = input.reshape(examples, -1)
    padding = None if padding_idx is None else padding_idx % len(weight)

    def contribution(g: Tensor) -> Lookup:
        right = _rows(g, examples)
        return Lookup(ids, right if padding is None else right * (ids != padding)[:, :, None], weight.shape)

    return [Part(weight, contribution, layout)]


def _embedding_for_each(examples: int, input: Tensor, *args: Any, **kwargs: Any) -> Parts:
    """Of ids that do not come from the data, such as the kinds of tokens, laid out for each example."""
    if input.ndim < 2 or input.shape[0] != examples:
        return None
    return _embedding(examples, input, *args, **kwargs)


def _normalised(
    examples: int,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    spread: Sequence[int],
    unit: Callable[[], Tensor],
) -> Parts:
    """Of y = unit weight + bias; seen as of the shape ``spread`` the two are broadcast over the examples."""
    layout = _layout(examples, x)
    if layout is None or x.ndim < 2:
        return None
    shape = torch.Size(spread)
    own = next((w.shape for w in (weight, bias) if w is not None), shape)
    held: list[Tensor] = []

    def of_weight(g: Tensor) -> Whole:
        if not held:
            held.append(unit())
        return Whole(_summed_to(at_least_float32(g) * held[0], shape, examples), own)

    def of_bias(g: Tensor) -> Whole:
        return Whole(_summed_to(g, shape, examples), own)

    return [Part(weight, of_weight, layout), Part(bias, of_bias, layout)]


def _layer_norm(
    examples: int,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Parts:
    def unit() -> Tensor:
        return F.layer_norm(at_least_float32(input.detach()), normalized_shape, eps=eps)

    return _normalised(examples, input, weight, bias, normalized_shape, unit)


def _rms_norm(
    examples: int,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Parts:
    def unit() -> Tensor:
        return at_least_float32(F.rms_norm(input.detach(), normalized_shape, eps=eps))

    return _normalised(examples, input, weight, None, normalized_shape, unit)


def _channels(x: Tensor) -> list[int]:
    return [x.shape[1], *(1 for _ in x.shape[2:])] if x.ndim > 1 else []


def _group_norm(
    examples: int,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Parts:
    def unit() -> Tensor:
        return F.group_norm(at_least_float32(input.detach()), num_groups, eps=eps)

    return _normalised(examples, input, weight, bias, _channels(input), unit)


def _batch_norm(
    examples: int,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Parts:
    if training or running_mean is None or running_var is None:
        return None
    mean, var = running_mean, running_var

    def unit() -> Tensor:
        x = at_least_float32(input.detach())
        return F.batch_norm(x, mean.to(x.dtype), var.to(x.dtype), eps=eps)

    return _normalised(examples, input, weight, bias, _channels(input), unit)


def _product(examples: int, input: Tensor, other: Any) -> Parts:
    return _elementwise(examples, input, other, lambda g, factor: at_least_float32(g) * factor)


def _sum(examples: int, input: Tensor, other: Any) -> Parts:
    return _elementwise(examples, input, other, lambda g, _: g)


def _elementwise(examples: int, input: Any, other: Any, share: Callable[[Tensor, Any], Tensor]) -> Parts:
    """Of an operation whose gradient in one operand is ``share`` of the output's gradient and the other operand."""
    parts = []
    for weight, factor in ((input, other), (other, input)):
        if not isinstance(weight, Tensor) or not isinstance(factor, Tensor):
            continue
        shape = torch.broadcast_shapes(weight.shape, factor.shape)  # type: ignore[no-untyped-call]
        layout = _layout(examples, factor) if factor.ndim == len(shape) else None
        if layout is None or (weight.ndim == len(shape) and weight.shape[0] != 1):
            continue
        parts.append(_elementwise_part(examples, weight, factor, share, layout))
    return parts


def _elementwise_part(
    examples: int, weight: Tensor, factor: Tensor, share: Callable[[Tensor, Any], Tensor], layout: str
) -> Part:
    def contribution(g: Tensor) -> Whole:
        return Whole(_summed_to(share(g, factor.detach()), weight.shape, examples), weight.shape)

    return Part(weight, contribution, layout)


def _expand(examples: int, input: Tensor, *sizes: Any) -> Parts:
    """A weight laid out once for each example."""
    shape = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(shape) == 0 or shape[0] != examples or (input.ndim == len(shape) and input.shape[0] != 1):
        return None
    return [Part(input, lambda g: Whole(_summed_to(g, input.shape, examples), input.shape), "rows")]


def _pairs(value: Any, dims: int) -> tuple[int, ...]:
    return (int(value),) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _spread(x: Tensor, examples: int, groups: int) -> Tensor:
    """(B, K, m places, channels) from (B m, K channels, ...)."""
    x = at_least_float32(x.detach())
    x = x.reshape(examples, -1, groups, x.shape[1] // groups, x.shape[2:].numel())
    return x.permute(0, 2, 1, 4, 3).flatten(2, 3)


def _convolution(dims: int) -> Callable[..., Parts]:
    def rule(
        examples: int,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Parts:
        layout = _layout(examples, input)
        if layout is None or input.ndim != dims + 2:
            return None
        kernel, steps, spreads = weight.shape[2:], _pairs(stride, dims), _pairs(dilation, dims)
        margins = _margins(padding, kernel, spreads)

        def contribution(g: Tensor) -> Outer:
            x = at_least_float32(input.detach())
            patches = Patches(x, examples, kernel, steps, spreads, margins, g.shape[2:], groups)
            return Outer(_spread(g, examples, groups), patches, weight.shape)

        return [Part(weight, contribution, layout), _channel_bias(bias, layout, examples)]

    return rule


def _transposed_convolution(dims: int) -> Callable[..., Parts]:
    """The adjoint of a convolution: what comes in and the gradient of what goes out change places."""

    def rule(
        examples: int,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Parts:
        layout = _layout(examples, input)
        if layout is None or input.ndim != dims + 2:
            return None
        kernel, steps, spreads = weight.shape[2:], _pairs(stride, dims), _pairs(dilation, dims)
        margins = _margins(padding, kernel, spreads)

        def contribution(g: Tensor) -> Outer:
            patches = Patches(at_least_float32(g), examples, kernel, steps, spreads, margins, input.shape[2:], groups)
            return Outer(_spread(input, examples, groups), patches, weight.shape)

        return [Part(weight, contribution, layout), _channel_bias(bias, layout, examples)]

    return rule


def _margins(padding: Any, kernel: Sequence[int], spreads: Sequence[int]) -> list[tuple[int, int]]:
    """Padding before and after, along each dimension."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        totals = [spread * (size - 1) for size, spread in zip(kernel, spreads, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(size, size) for size in _pairs(padding, len(kernel))]


def _channel_bias(bias: Tensor | None, layout: str, examples: int) -> Part:
    def contribution(g: Tensor) -> Whole:
        return Whole(_summed_to(g, torch.Size(_channels(g)), examples), torch.Size(g.shape[1:2]))

    return Part(bias, contribution, layout)


RULES: dict[Any, Callable[..., Parts]] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    torch.mm: _matmul,
    Tensor.mm: _matmul,
    torch.addmm: _addmm,
    F.conv1d: _convolution(1),
    F.conv2d: _convolution(2),
    F.conv3d: _convolution(3),
    F.conv_transpose1d: _transposed_convolution(1),
    F.conv_transpose2d: _transposed_convolution(2),
    F.conv_transpose3d: _transposed_convolution(3),
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    torch.add: _sum,
    Tensor.add: _sum,
    Tensor.add_: _sum,
    torch.mul: _product,
    Tensor.mul: _product,
}

EXPANDING: dict[Any, Callable[..., Parts]] = {
    F.embedding: _embedding_for_each,
    Tensor.expand: _expand,
}
"""Where no data take part, these may yet lay a weight out for each example: a class token, say."""
