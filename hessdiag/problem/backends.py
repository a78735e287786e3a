"""The torch settings under which second derivatives exist and are exact, set for a while and put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["exact_backends"]


@contextmanager
def exact_backends(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Full float32 precision, differentiable kernels, no autocast, no compiled regions.

    - scaled_dot_product_attention runs its math kernel: the fused ones have no second derivative;
    - the fused encoder path of ``nn.TransformerEncoderLayer`` is off, for the same reason;
    - cuDNN is off where the model has recurrent layers: it cannot differentiate them in evaluation mode;
    - TF32 is off: its 10-bit mantissa swamps a difference of losses;
    - autocast and inference mode are off, gradients are on, ``torch.compile``d regions run eagerly
      (compiled graphs have no second derivative).
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(_ieee_float32())
        stack.enter_context(_no_encoder_fastpath())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if recurrent and device.type == "cuda":
            stack.enter_context(_no_cudnn())
        if "torch._dynamo" in sys.modules:  # loaded only where something was compiled; loading it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def _ieee_float32() -> Iterator[None]:
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    operations = [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    changed = []
    try:
        # From the general to the special, and only what is not right already: a setting that follows a more
        # general one cannot be read as such, and would no longer follow it if it were written.
        for backend in [backends, cudnn, mkldnn, *operations]:
            before = backend.fp32_precision
            if before != "ieee":
                changed.append((backend, before))
                backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, before in reversed(changed):
            backend.fp32_precision = before


@contextmanager
def _no_cudnn() -> Iterator[None]:
    # Not torch.backends.cudnn.flags: it reads allow_tf32, which raises after fp32_precision has been set.
    cudnn: Any = torch.backends.cudnn
    before = cudnn.enabled
    cudnn.enabled = False
    try:
        yield
    finally:
        cudnn.enabled = before


@contextmanager
def _no_encoder_fastpath() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
