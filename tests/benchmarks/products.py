"""Time per Hessian-vector product over the whole data, at 8 probes, beside PyHessian's on the same problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from hessdiag import HessianOperator, Problem
from hessdiag.workflows.pyhessian_adapter import pyhessian_of
from tests.benchmarks.networks import cases

PROBES = 8
ROUNDS = 5


def products(device: torch.device) -> str:
    rows = [_row(name, *case, device) for name, case in cases().items()]
    return "\n".join(
        [
            f"## Hessian-vector products, {PROBES} probes, 3 batches",
            "",
            "| network | parameters | gradient | hessdiag | PyHessian | hessdiag / gradient | hessdiag / PyHessian |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
        ]
    )


def _row(name: str, model: torch.nn.Module, loss: str, batches: list[Any], device: torch.device) -> str:
    problem = Problem(model.to(device), loss, batches)
    H = HessianOperator(problem)
    V = torch.randn(problem.n, PROBES, device=device)
    with pyhessian_of(problem) as other:
        lists = [_like_parameters(problem, v) for v in V.T]

        def theirs() -> list[torch.Tensor]:
            return [problem.flatten(other.module.dataloader_hv_product(v)[1]) for v in lists]

        _same(H.matmat(V), torch.stack(theirs(), 1))
        contenders: dict[str, Callable[[], Any]] = {
            "ours": lambda: H.matmat(V),
            "theirs": theirs,
            "gradient": problem.gradient,
        }
        times: dict[str, list[float]] = {key: [] for key in contenders}
        for _ in range(ROUNDS):
            for key, work in contenders.items():
                times[key].append(_seconds(work, device))
    ours, theirs_ms = (1000 * median(times[key]) / PROBES for key in ("ours", "theirs"))
    gradient = 1000 * median(times["gradient"])
    ratio = median(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
    return (
        f"| {name} | {problem.n:,} | {gradient:.1f} | {ours:.1f} | {theirs_ms:.1f} "
        f"| {ours / gradient:.2f} | **{ratio:.2f}** |"
    )


def _like_parameters(problem: Problem, v: torch.Tensor) -> list[torch.Tensor]:
    return [part.clone() for part in problem.unflatten(v)]


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """A race between programs that compute different things is no race."""
    distance = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs)
    assert distance < 1e-3, f"the products differ by {distance:.1e}"


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
