"""The program ``hessdiag``: its commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hessdiag import __version__
from hessdiag.cli.audit import audit
from hessdiag.cli.crosscheck import crosscheck
from hessdiag.cli.density import density
from hessdiag.cli.doctor import doctor
from hessdiag.cli.eigs import eigs
from hessdiag.cli.failures import failures_explained, no_more_interrupts
from hessdiag.cli.gap import gap
from hessdiag.cli.init import init
from hessdiag.cli.inspect import inspect
from hessdiag.cli.nso import nso
from hessdiag.cli.schema import schema
from hessdiag.cli.streams import open_closed_streams
from hessdiag.cli.trace import trace
from hessdiag.cli.validate import validate

__all__ = ["app", "main"]

app = typer.Typer(
    name="hessdiag",
    help="How sharp is this checkpoint? Measures the Hessian of the loss: eigenvalues, trace, spectral density, "
    "and the loss gained by weight noise, each with its error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (audit, eigs, trace, gap, density, crosscheck, inspect, init, validate, schema, doctor):
    app.command()(command)
app.add_typer(nso)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hessdiag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program; whatever happens, it ends with one of the contract's codes."""
    open_closed_streams()
    try:
        with failures_explained():
            _run()
    except typer.Exit as end:
        sys.exit(end.exit_code)


def _run() -> None:
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # `--help | head`, for which typer exits with 1
            raise typer.Exit(0) from None
        no_more_interrupts()  # the command has ended; only Python has to
        raise typer.Exit(end.code if isinstance(end.code, int) else 0) from None
