"""How long ``hessdiag audit`` of the digits fixture takes from the shell: all sections, the trace to 2 %."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from statistics import median

from tests.benchmarks.page import Target, number, section, table
from tests.benchmarks.subjects import FIXTURES

RUNS = 3
SECONDS = 15.0


def audit(quick: bool) -> str:
    command = [
        *(sys.executable, "-m", "hessdiag", "audit", str(FIXTURES / "digits" / "audit.yaml"), "--json"),
        *("--set", "audit.trace.rtol=0.02", "--set", "audit.density.steps=80"),
    ]
    if quick:
        command += ["--set", "audit.gap.draws=2", "--set", "audit.density.steps=5", "--max-examples", "64"]
    times, reports = [], []
    for _ in range(1 if quick else RUNS):
        with tempfile.TemporaryDirectory() as folder:  # without the report of an earlier run to go on from
            start = time.perf_counter()
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            times.append(time.perf_counter() - start)
        if done.returncode:
            raise RuntimeError(f"the audit failed with exit code {done.returncode}: {done.stderr.strip()}")
        reports.append(json.loads(done.stdout))
    report = reports[0]
    names = [name for name in ("eigenvalues", "trace", "gap", "density") if name in report]
    rows = [_costs(name, report[name]["cost"]) for name in names] + [_costs("all", report["cost"])]
    trace = report["trace"]
    return section(
        "A whole audit",
        "`hessdiag audit fixtures/digits/audit.yaml` from the shell: five eigenvalues from the top and one from the "
        "bottom, the trace to 2 %, the gap at 11 sigmas with 100 draws, the density.",
        table(["section", "forward", "gradient", "product", "seconds"], rows),
        f"Trace {trace['value']:.4g} in [{trace['interval'][0]:.4g}, {trace['interval'][1]:.4g}] by {trace['method']}.",
        [
            Target(
                f"wall time, median of {len(times)} runs",
                median(times),
                SECONDS,
                at_least=False,
                unit=" s",
                because="the gap's forward passes are most of it",
            )
        ],
    )


def _costs(name: str, cost: dict[str, float]) -> list[str]:
    return [name, *[number(cost[kind]) for kind in ("forward", "gradient", "hvp", "seconds")]]
