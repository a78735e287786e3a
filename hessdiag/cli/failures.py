"""How a command ends when it fails: a message with a way on, and the exit code of the contract."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from hessdiag.errors import HessdiagError, SpecError

__all__ = ["INTERRUPTED", "failures_explained", "say"]

INTERNAL_ERROR = 3
INTERRUPTED = 130


def say(message: str) -> None:
    """One message to the person, on stderr, nothing in it taken as markup."""
    encoding = sys.stderr.encoding or "ascii"
    print(message.encode(encoding, "replace").decode(encoding), file=sys.stderr)


@contextmanager
def failures_explained(debug: bool = False) -> Iterator[None]:
    """Turn what a command raises into a message and an exit code; a traceback only with ``debug``."""
    try:
        yield
        sys.stdout.flush()
    except typer.Exit:
        raise
    except BrokenPipeError:
        # Whoever read stdout has seen enough (`| head`); the report is on disk already.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except HessdiagError as error:
        if debug:
            traceback.print_exc()
        # A spec's faults carry their place, file:line:column, which must begin the line to be clickable.
        say(str(error) if isinstance(error, SpecError) else f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        say(f"error: internal error: {type(error).__name__}: {error}")
        if not debug:
            say("run again with --debug for the traceback, and please report it")
        raise typer.Exit(INTERNAL_ERROR) from None
