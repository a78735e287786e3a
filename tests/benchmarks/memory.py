"""Peak memory of one program's products, in a process of its own: ``python -m tests.benchmarks.memory NETWORK NAME``.

On CUDA it is the allocator's peak; on a CPU the resident set's, above what the process held with the problem loaded
and a first gradient taken. Both leave out the model, the data and the vectors, which all programs need alike.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hessdiag import Problem
from tests.benchmarks.networks import network
from tests.benchmarks.peers import product_of


def peak_bytes(name: str, program: str, probes: int, size: int) -> int:
    """Bytes at the peak of ``probes`` products, measured in a child.

    Raises:
        RuntimeError: the child failed; its last line says why.
    """
    command = [sys.executable, "-m", "tests.benchmarks.memory", name, program, str(probes), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return int(done.stdout.split()[-1])


def peak_here(name: str, program: str, probes: int, size: int) -> int:
    """The same in this process, whose earlier peaks are forgotten."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    case = network(name, device, size)
    problem = Problem(case.model, case.loss, case.batches)
    problem.gradient()
    V = torch.randn(problem.n, probes, generator=torch.Generator().manual_seed(1)).to(device)
    with product_of(program, case, problem, V) as product:
        return peak_of(product, device)


def peak_of(work: Callable[[], Any], device: torch.device) -> int:
    """Bytes at the peak of some work, beyond what is held when it begins."""
    before = _settle(device)
    work()
    return _peak(device) - before


def _settle(device: torch.device) -> int:
    """Give back what is free, forget earlier peaks, and say what is held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return _peak(device)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform != "linux":
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(peak_here(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
