"""``hessdiag doctor``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from hessdiag.cli.failures import failures_explained, warnings_hidden
from hessdiag.cli.streams import results_alone_on_stdout

UNWELL = 3


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Tell versions, devices and missing extras, and test the numbers against a dense Hessian."""
    with failures_explained(debug), warnings_hidden(unless=debug):
        with results_alone_on_stdout():
            from hessdiag.workflows.doctor import examine

            found = examine()
        if as_json:
            sys.stdout.write(json.dumps(found.to_dict(), indent=2) + "\n")
        else:
            from hessdiag.reports import terminal
            from hessdiag.reports.console import stdout_console

            stdout_console().print(terminal.render_examination(found))
    if not found.well:
        raise typer.Exit(UNWELL)
