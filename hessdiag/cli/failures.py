"""How a command ends when it fails: a message with a way on, and the exit code of the contract."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from hessdiag.cli.streams import say
from hessdiag.errors import CheckpointError, HessdiagError, SpecError

__all__ = ["INTERRUPTED", "failures_explained", "no_more_interrupts", "warnings_hidden"]

INTERNAL_ERROR = 3
INTERRUPTED = 130


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
        no_more_interrupts()
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except HessdiagError as error:
        if debug:
            traceback.print_exc()
        # A spec's faults carry their place, file:line:column, which must begin the line to be clickable.
        say(str(error) if isinstance(error, SpecError) else f"error: {error}")
        if not debug and _of_users_code(error):
            say("run again with --debug for the traceback")
        raise typer.Exit(error.exit_code) from None
    except SystemExit as end:
        if debug:
            traceback.print_exc()
        say(f"error: code that the spec names ended the program (sys.exit({end.code!r})): let it raise an exception")
        raise typer.Exit(INTERNAL_ERROR) from None
    except BaseException as error:
        if debug:
            traceback.print_exc()
        say(f"error: internal error: {type(error).__name__}: {error}")
        if not debug:
            say("run again with --debug for the traceback, and please report it")
        raise typer.Exit(INTERNAL_ERROR) from None


def no_more_interrupts() -> None:
    """Let the program end in peace after a first Ctrl-C: a second one would cost it its last words."""
    with suppress(ValueError):  # not the main thread, which alone is interrupted
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _of_users_code(error: HessdiagError) -> bool:
    """Whether an exception of a spec's code is behind it.

    A damaged checkpoint and a package that is not installed have no traceback worth reading.
    """
    from hessdiag.loading.extras import MissingExtraError

    plain = isinstance(error, (CheckpointError, MissingExtraError))
    return error.exit_code == INTERNAL_ERROR and error.__cause__ is not None and not plain


@contextmanager
def warnings_hidden(unless: bool) -> Iterator[None]:
    """Python's and torch's warnings are for developers; what a user must know is in the report."""
    with warnings.catch_warnings():
        if not (unless or sys.warnoptions):
            warnings.simplefilter("ignore")
        yield
