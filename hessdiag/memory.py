"""How much memory a measurement may take, and what to say when there is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    known = [free for free in (_available_on_host(), _left_in_container()) if free is not None]
    return max(min(known, default=_FALLBACK_BYTES), 0)


def _available_on_host() -> int | None:
    """What can be had without swapping, page cache included; not every system tells."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _left_in_container() -> int | None:
    """What a control group leaves: a process that takes more is killed without a word."""
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return int((group / limit).read_text()) - int((group / used).read_text())
        except (ValueError, OSError):  # "max": no limit; or the other version of control groups
            continue
    return None


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
    return (
        f"out of memory ({first_line}): lower data.batch_size, select fewer parameters, or keep fewer vectors "
        "(eigenvalues.max_matvecs, density.steps)"
    )
