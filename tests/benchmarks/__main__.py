"""``python -m tests.benchmarks``: run every benchmark, print the tables, write them to RESULTS.md.

Installs nothing. Compared programs run in one process in A B A B order; ratios are of medians.
"""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from tests.benchmarks.products import products
from tests.benchmarks.startup import startup

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sections = [_heading(device), products(device), startup()]
    text = "\n\n".join(sections) + "\n"
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def _heading(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    packages = ", ".join(f"{package} {version(package)}" for package in ("hessdiag", "torch", "pyhessian"))
    return (
        "# Benchmarks\n\n"
        "Written by `python -m tests.benchmarks`. Times are medians in milliseconds; the machine is shared, so the\n"
        "ratios, measured side by side in one process, are what to read.\n\n"
        f"- {date.today().isoformat()}, {name}, {torch.get_num_threads()} threads, Python {platform.python_version()}\n"
        f"- {packages}"
    )


if __name__ == "__main__":
    main()
