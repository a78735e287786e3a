"""How much memory a measurement may take, and what to say when there is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hessdiag.errors import MeasurementError

__all__ = ["available_memory", "chunk_size", "memory_errors_explained", "out_of_memory"]

_FALLBACK_BYTES = 1 << 30
_WORDS = ("DefaultCPUAllocator", "not enough memory", "out of memory", "ALLOC_FAILED")
_SHARE = 0.5  # of what is free: the rest is for activations, graphs and other processes


def available_memory(device: torch.device) -> int:
    """Bytes that are free on ``device`` now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return _FALLBACK_BYTES


def chunk_size(bytes_each: int, wanted: int, device: torch.device) -> int:
    """How many of ``wanted`` things of ``bytes_each`` fit into half of the free memory; at least one."""
    fits = int(available_memory(device) * _SHARE) // max(bytes_each, 1)
    return max(1, min(wanted, fits))


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Turn the several ways in which torch runs out of memory into one error with a way on.

    Raises:
        MeasurementError: when the body ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MeasurementError(_advice(error)) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether this is one of the ways in which Python, torch's allocators or its libraries say so."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
    )


def _advice(error: BaseException) -> str:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"out of memory ({first_line}): lower data.batch_size, or select fewer parameters"
