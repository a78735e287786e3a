"""Quantised weights among a checkpoint's tensors: recognised by the names and kinds that the methods use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import RefusedError
from hessdiag.loading.checkpoints.words import counted, printable

__all__ = ["refuse_quantisation", "refuse_quantised"]

_METHODS = {
    ".SCB": "bitsandbytes, 8 bits",
    ".weight_format": "bitsandbytes, 8 bits",
    ".absmax": "bitsandbytes, 4 bits",
    ".quant_map": "bitsandbytes, 4 bits",
    ".g_idx": "GPTQ",
    ".qzeros": "AWQ or GPTQ",
    ".W_q": "HQQ",
    ".weight_packed": "compressed-tensors",
    ".weight_scale_inv": "scaled float8",
    ".weight_scale": "scaled float8 or int8",
}
"""By the end of a tensor's name, the method that stores such a tensor beside the packed weights."""

_PACKED = {torch.int8, torch.uint8, torch.int32, torch.int64, torch.float8_e4m3fn, torch.float8_e5m2}


def refuse_quantisation(config: Mapping[str, Any]) -> None:
    """Refuse weights that a Hugging Face ``config.json`` calls quantised.

    Raises:
        RefusedError: it does; names the method.
    """
    quantised = config.get("quantization_config")
    if quantised:
        method = printable(quantised.get("quant_method")) if isinstance(quantised, dict) else "quantization_config"
        raise RefusedError(
            f"refused: the weights are quantised ({method}), so the loss is not twice "
            "differentiable in them as stored: take the folder of the unquantised model (float32, bfloat16 or float16)"
        )


def refuse_quantised(tensors: Mapping[str, Tensor], besides: Collection[str] = ()) -> None:
    """Refuse the integers and scales of a quantised network.

    Args:
        tensors: the weights by name.
        besides: the names of what stands among them and is no tensor.

    Raises:
        RefusedError: there are such tensors; names the method, their count and the first.
    """
    for ending, method in _METHODS.items():
        found = [name for name in tensors if name.endswith(ending)]
        if found and _beside_packed(found[0].removesuffix(ending), tensors):
            raise RefusedError(_refusal(method, len(found), found[0]))
    found = [name for name, item in tensors.items() if item.is_quantized]
    found += [name for name in besides if name.endswith("._packed_params")]  # a layer's weight and bias in one
    if found:
        raise RefusedError(_refusal("by torch", len(found), found[0]))


def _beside_packed(module: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the module has a tensor that is no floating-point weight: a network may call a weight of its own so."""
    return any(item.dtype in _PACKED for name, item in tensors.items() if name.startswith(module))


def _refusal(method: str, count: int, first: str) -> str:
    return (
        f"refused: the weights are quantised ({method}: {counted(count)} such as {printable(first)}), so the "
        "loss is not twice differentiable in them as stored: take the unquantised checkpoint that they were made from "
        "(float32, bfloat16 or float16)"
    )
