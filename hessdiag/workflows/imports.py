"""Whether packages can be imported, tried in another process: a broken one can end, or hang, the one that tries."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["import_faults"]

_SECONDS = 60.0
_MARK = "hessdiag-import:"  # packages may print while they are imported
_CHILD = "from hessdiag.workflows.imports import report; report()"


def import_faults(modules: Sequence[str], seconds: float = _SECONDS) -> dict[str, str]:
    """Try to import each module; by name, why it failed and what to do. What can be imported is not in it.

    Args:
        modules: dotted names.
        seconds: for all of them; the one that is being imported then is to blame.
    """
    faults: dict[str, str] = {}
    left = list(modules)
    while left:
        found, end = _run(left, seconds)
        faults |= {name: fault for name, fault in found.items() if fault is not None}
        left = left[len(found) :]
        if left:  # the process ended at this one
            faults[left.pop(0)] = end
    return faults


def _run(modules: list[str], seconds: float) -> tuple[dict[str, str | None], str]:
    """What a process said of each module before it ended, and how it ended."""
    # The same path as this process, and without the current folder, whose files could be taken for packages.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", _CHILD, *modules]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        return _said(error.stdout or b""), f"its import did not end within {seconds:g} s"
    return _said(done.stdout), f"its import ended Python (exit code {done.returncode})"


def _said(output: bytes) -> dict[str, str | None]:
    lines = output.decode("utf-8", "replace").splitlines()
    return dict(json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK))


def report() -> None:
    """In the other process: import what the arguments name, one line for each."""
    from hessdiag.loading.extras import explain_import

    for name in sys.argv[1:]:
        fault = None
        try:
            importlib.import_module(name)
        except Exception as error:
            fault = str(explain_import(error, name, name)).removeprefix(f"{name}: ")
        print(f"\n{_MARK}{json.dumps([name, fault])}", flush=True)
