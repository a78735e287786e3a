"""What a model and its data must be before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from hessdiag.errors import MeasurementError, UsageError

__all__ = ["one_place", "refuse_bad_weights", "refuse_shared_memory", "refuse_what_is_read_once"]


def one_place(parameters: dict[str, nn.Parameter]) -> tuple[torch.device, torch.dtype]:
    """The one device and dtype of all selected parameters; float16 and mps are refused.

    Raises:
        MeasurementError: there are several, or they cannot be measured in.
    """
    for what, places in (
        ("devices", {str(p.device) for p in parameters.values()}),
        ("dtypes", {str(p.dtype).removeprefix("torch.") for p in parameters.values()}),
    ):
        if len(places) > 1:
            raise MeasurementError(
                f"the selected parameters have several {what} ({', '.join(sorted(places))}), expected one: "
                "move the model to one, or select some of them"
            )
    first = next(iter(parameters.values()))
    if first.dtype is torch.float16:
        raise MeasurementError(
            "the model is in float16, whose range a Hessian leaves (above 65504 it is infinite): "
            "measure in float32 (dtype: float32) or bfloat16"
        )
    if first.device.type == "mps":
        raise MeasurementError("the model is on an mps device, which has no float64 to sum in: measure on the cpu")
    return first.device, first.dtype


def refuse_bad_weights(model: nn.Module) -> None:
    """Raise MeasurementError where a parameter is not finite, or a buffer is NaN."""
    parameters, buffers = list(model.named_parameters()), list(model.named_buffers())
    bad = [name for name, p in parameters if not bool(p.isfinite().all())]
    bad += [name for name, buffer in buffers if bool(buffer.isnan().any())]  # infinity is usual in attention masks
    if bad:
        raise MeasurementError(
            f"{len(bad)} of the model's {len(parameters) + len(buffers)} tensors hold NaN or infinite values "
            f"(first: {bad[0]}): "
            "the checkpoint was saved from a diverged run, take an earlier one"
        )


def refuse_shared_memory(parameters: dict[str, nn.Parameter]) -> None:
    """Raise MeasurementError where two parameters are one memory: displacing one would displace both."""
    seen: dict[int, str] = {}
    for name, parameter in parameters.items():
        other = seen.setdefault(parameter.data_ptr(), name) if parameter.numel() else name
        if other != name:
            raise MeasurementError(
                f"parameters {other} and {name} are two that share one memory, so that neither can change alone: "
                "tie them as one nn.Parameter, or exclude one of them"
            )


def refuse_what_is_read_once(data: Any) -> None:
    """Raise UsageError for iterators, and for what is no collection of batches."""
    # Asking iter(data) would start a DataLoader's workers and draw from the random generator.
    if isinstance(data, Iterator):
        raise UsageError(
            f"data: found a {type(data).__name__}, which can be read once; expected what can be read again: "
            "a list of batches, a DataLoader, ..."
        )
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise UsageError(f"data: found a {type(data).__name__}, expected batches: a list, a DataLoader, ...")
