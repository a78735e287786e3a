"""How long ``hessdiag --help`` takes as a whole process, and that it does without torch."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

ROUNDS = 7
TARGET = 0.4


def startup() -> str:
    command = [sys.executable, "-m", "hessdiag", "--help"]
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    probe = "import sys, hessdiag.cli.app; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip()
    return (
        "## Start\n\n"
        f"`hessdiag --help`: {median(times[1:]):.2f} s (target at most {TARGET} s); torch imported: "
        f"{'yes' if loaded == 'True' else 'no'}"
    )
