"""``python -m tests.benchmarks [NAMES...]``: run the named sections, or all, and write them to RESULTS.md.

Installs nothing: peers that are missing are said to be. Programs that are compared run in one process in A B A B
order. A section that is run alone replaces its own part of RESULTS.md.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date

import torch

from tests.benchmarks.page import RESULTS, merged
from tests.benchmarks.peers import versions

ORDER = ("products", "eigenvalues", "trace", "untrained", "coverage", "gap", "audit", "startup", "steps", "gpt2")
ON_REQUEST = ("gpt2",)  # takes most of an hour
HEADING = """# Benchmarks

Written by `python -m tests.benchmarks` (`pip install -e '.[bench]'` brings the peers). Costs are passes over the
whole data: a gradient is one, a Hessian-vector product as many as it takes on the same machine. Times depend on the
machine; ratios, measured side by side in one process, are what to read. A target that is missed says so."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"sections: {', '.join(ORDER)}")
    parser.add_argument("--quick", action="store_true", help="try the code on next to nothing; writes no file")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ORDER]
    if unknown:
        parser.error(f"found {', '.join(unknown)}, expected some of {', '.join(ORDER)}")
    for name in options.names or [name for name in ORDER if name not in ON_REQUEST]:
        text = run_section(name, quick=options.quick)
        print(text, end="\n\n", flush=True)
        if not options.quick:  # after each: an interrupted run has what it measured
            page = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
            RESULTS.write_text(merged(page, HEADING, {name: text}, ORDER), encoding="utf-8")


def run_section(name: str, *, quick: bool) -> str:
    """A section's text, and at its end where, when and how long."""
    measure: Callable[[bool], str] = getattr(importlib.import_module(f"tests.benchmarks.{name}"), name)
    print(f"{name} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    text = measure(quick)
    return f"{text}\n\n_{_where()}; {time.perf_counter() - began:.0f} s._"


def _where() -> str:
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    machine = f"{gpu}{os.cpu_count()} cores, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    return f"{date.today().isoformat()}; {machine}; {versions()}"


if __name__ == "__main__":
    main()
