"""The standard streams: results alone on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

__all__ = ["open_closed_streams", "results_alone_on_stdout", "say"]


def say(message: str) -> None:
    """One message to the person, on stderr, nothing in it taken as markup, nor obeyed by a terminal."""
    encoding = sys.stderr.encoding or "ascii"
    message = "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in message)
    print(message.encode(encoding, "replace").decode(encoding), file=sys.stderr)


@contextmanager
def results_alone_on_stdout() -> Iterator[None]:
    """Send to stderr what the body writes to stdout.

    A spec's code may print, in Python, in C or in a child process; a reader of ``--json`` must not see it.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def open_closed_streams() -> None:
    """Stand in for streams that the program was started without (``2>&-``), which Python gives as None."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
