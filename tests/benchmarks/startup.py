"""How long ``hessdiag --help`` takes as a whole process, and that it does without torch."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from tests.benchmarks.page import Target, section

ROUNDS = 7
SECONDS = 0.4


def startup(quick: bool) -> str:
    command = [sys.executable, "-m", "hessdiag", "--help"]
    times = []
    for _ in range(2 if quick else ROUNDS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    probe = "import sys, hessdiag.cli.app; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip()
    return section(
        "Start",
        [Target("`hessdiag --help`", median(times[1:]), SECONDS, at_least=False, unit=" s")],
        f"Torch imported for it: {'yes' if loaded == 'True' else 'no'}.",
    )
