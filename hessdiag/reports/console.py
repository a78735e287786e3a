"""The two consoles of the command line: results go to stdout, progress, warnings and errors to stderr."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console

__all__ = ["stderr_console", "stdout_console"]

# Wider than any table, so that a file or a pipe gets whole names; rich's own choice there is 80 columns.
_UNCROPPED = 100_000


def stdout_console() -> Console:
    """For results. Colours and the window's width on a terminal; elsewhere no colours, and nothing cropped."""
    return _console(sys.stdout, stderr=False)


def stderr_console() -> Console:
    """For progress, warnings and errors, by the same rules as :func:`stdout_console`."""
    return _console(sys.stderr, stderr=True)


def _console(stream: TextIO, *, stderr: bool) -> Console:
    # isatty, not rich's is_terminal: FORCE_COLOR asks for colours in a pipe, not for cropping.
    width = None if stream.isatty() else _UNCROPPED
    height = None if stream.isatty() else 25  # rich drops a width without a height where TERM is dumb
    return Console(
        stderr=stderr, width=width, height=height, markup=False, highlight=False, emoji=False, soft_wrap=False
    )
