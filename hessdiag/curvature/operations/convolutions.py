"""Convolutions by the trilinear form T(x, w, g) = <g, x * w>: each derivative of it is one of three kernels.

The second derivative of torch's own convolution takes pictures for kernels, and goes through grouped ones group by
group; here it is the kernels of the forward and the backward pass again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.operations.apply import apply

__all__ = ["conv1d", "conv2d", "conv3d"]


@dataclass(frozen=True)
class _Shape:
    """A convolution's numbers, and the shapes of its picture and kernel."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    picture: torch.Size
    kernel: torch.Size


def conv1d(*args: Any, **kwargs: Any) -> Tensor | None:
    """As ``F.conv1d``."""
    return _convolved(1, *args, **kwargs)


def conv2d(*args: Any, **kwargs: Any) -> Tensor | None:
    """As ``F.conv2d``."""
    return _convolved(2, *args, **kwargs)


def conv3d(*args: Any, **kwargs: Any) -> Tensor | None:
    """As ``F.conv3d``."""
    return _convolved(3, *args, **kwargs)


def _convolved(
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str) or input.ndim != dimensions + 2:
        return None
    steps, margins, gaps = (_each(number, dimensions) for number in (stride, padding, dilation))
    shape = _Shape(steps, margins, gaps, groups, input.shape, weight.shape)
    result: Tensor = apply(_Output, input, weight, shape)
    return result if bias is None else result + bias.view(-1, *[1] * dimensions)


def _each(number: int | Sequence[int], dimensions: int) -> list[int]:
    numbers = [number] if isinstance(number, int) else list(number)
    return numbers * dimensions if len(numbers) == 1 else numbers


class _Output(torch.autograd.Function):
    """dT/dg: x * w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.shape = shape
        s = shape
        none = [0] * len(s.stride)
        return torch.ops.aten.convolution(x, w, None, s.stride, s.padding, s.dilation, False, none, s.groups)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, w = ctx.saved_tensors
        to_x, to_w, _ = ctx.needs_input_grad
        return (
            apply(_Picture, g, w, ctx.shape) if to_x else None,
            apply(_Kernel, g, x, ctx.shape) if to_w else None,
            None,
        )


class _Picture(torch.autograd.Function):
    """dT/dx, from g and w."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.shape = shape
        return _backward(g, g.new_empty(1).expand(shape.picture), w, shape, 0)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
        g, w = ctx.saved_tensors
        to_g, to_w, _ = ctx.needs_input_grad
        return (
            apply(_Output, v, w, ctx.shape) if to_g else None,
            apply(_Kernel, g, v, ctx.shape) if to_w else None,
            None,
        )


class _Kernel(torch.autograd.Function):
    """dT/dw, from g and x."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.shape = shape
        return _backward(g, x, g.new_empty(1).expand(shape.kernel), shape, 1)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
        g, x = ctx.saved_tensors
        to_g, to_x, _ = ctx.needs_input_grad
        return (
            apply(_Output, x, v, ctx.shape) if to_g else None,
            apply(_Picture, g, v, ctx.shape) if to_x else None,
            None,
        )


def _backward(g: Tensor, x: Tensor, w: Tensor, shape: _Shape, wanted: int) -> Tensor:
    s = shape
    none = [0] * len(s.stride)
    mask = [wanted == place for place in range(3)]
    result: Tensor = torch.ops.aten.convolution_backward(
        g, x, w, None, s.stride, s.padding, s.dilation, False, none, s.groups, mask
    )[wanted]
    return result
