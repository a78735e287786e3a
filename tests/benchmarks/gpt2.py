"""A network of GPT-2's shape, 124 million random weights, on the CPU: the largest eigenvalue, the trace."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

import hessdiag
from hessdiag import HessianOperator, Problem
from hessdiag.estimators.steps import run_together
from hessdiag.estimators.trace import trace_steps
from tests.benchmarks.networks import Transformer
from tests.benchmarks.page import Target, number, section, table

TOKENS, LENGTH, SEQUENCES = 2048, 256, 1  # texts of LENGTH tokens, SEQUENCES a batch: many batches, less noise
RESIDUAL, RTOL = 1e-2, 3e-2
BASIS = 2_500_000_000  # bytes for Lanczos vectors: five of them beside what a product takes
SEARCH = 24  # products for the eigenvalue: its residual takes 10 to 15, the assurance that none is larger many more
DEADLINE = 55.0  # minutes after which the trace ends with what it has
MINUTES, GIGABYTES = 60.0, 12.0


def gpt2(quick: bool) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.gpt2", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    rows = [
        [stage, *[number(cost[kind]) for kind in ("forward", "gradient", "hvp", "seconds")]]
        for stage, cost in found["costs"].items()
    ]
    low, high = found["interval"]
    return section(
        "GPT-2's shape",
        f"{found['parameters']:,} random weights (12 layers, width 768, 50,257 tokens, tied head), {found['tokens']:,} "
        f"random tokens in micro-batches of {SEQUENCES} x {LENGTH}, float32, {found['threads']} threads, in a process "
        f"of its own: `eigenvalues(H, top=1, bottom=0, rtol={RESIDUAL}, memory={BASIS / 1e9:g} GB)` and "
        f"`trace(H, rtol={RTOL})`, which ends with what it has after {DEADLINE:.0f} minutes in all.",
        table(["stage", "forward", "gradient", "product", "seconds"], rows),
        f"Largest eigenvalue {found['eigenvalue']:.6g}, residual {found['residual']:.1e}, "
        f"{'converged' if found['found'] else 'not converged'}. Trace {found['trace']:.6g} in [{low:.6g}, {high:.6g}] "
        f"by {found['method']}, {'converged' if found['converged'] else 'not converged'}.",
        [
            Target(
                "time", found["seconds"] / 60, MINUTES, at_least=False, unit=" min", because="of the machine's cores"
            ),
            Target(
                "peak memory",
                found["peak"] / 1e9,
                GIGABYTES,
                at_least=False,
                unit=" GB",
                because="a product's graph and the Lanczos vectors are held together",
            ),
            Target(
                "half-width of the trace's interval over the trace",
                (high - low) / 2 / abs(found["trace"]),
                RTOL,
                at_least=False,
                because="at random weights parts of either sign nearly cancel in the trace, and one probe's form "
                "varies by several times what is left: thousands of products",
            ),
            Target(
                "residual over the eigenvalue",
                found["residual"] / abs(found["eigenvalue"]),
                RESIDUAL,
                at_least=False,
                because="its budget of products ran out",
            ),
        ],
    )


def _measure(quick: bool) -> dict[str, Any]:
    began = time.perf_counter()
    torch.manual_seed(0)
    model = Transformer(500, 32, 2, 2, 64) if quick else Transformer(50257, 768, 12, 12, 1024)
    tokens, length = (128, 16) if quick else (TOKENS, LENGTH)
    ids = torch.randint(model.embed.num_embeddings, (tokens // length, length))
    problem = Problem(model, "causal_lm", [(rows, rows) for rows in ids.split(SEQUENCES)])
    H = HessianOperator(problem)
    if not quick:
        H.meter.watcher = lambda meter: print(f"\r{meter.read()}", end="", file=sys.stderr, flush=True)
    values = hessdiag.eigenvalues(H, top=1, bottom=0, rtol=RESIDUAL, memory=BASIS, max_matvecs=8 if quick else SEARCH)
    steps = trace_steps(H, rtol=RTOL, max_matvecs=16 if quick else 2000)
    trace = run_together(H, {"trace": steps}, deadline=began + 60 * DEADLINE)["trace"]
    unit = 1 if sys.platform == "darwin" else 1024
    stages = {"eigenvalue": values.cost, "trace": trace.cost, "all": H.meter.read()}
    costs = {
        stage: {kind: getattr(cost, kind) for kind in ("forward", "gradient", "hvp", "seconds")}
        for stage, cost in stages.items()
    }
    return {
        "parameters": problem.n,
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "costs": costs,
        "eigenvalue": values.largest[0].value,
        "residual": values.largest[0].residual_norm,
        "found": values.converged,
        "trace": trace.value,
        "interval": trace.interval,
        "method": trace.method,
        "converged": trace.converged,
        "seconds": time.perf_counter() - began,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


if __name__ == "__main__":
    print(json.dumps(_measure("--quick" in sys.argv)))
