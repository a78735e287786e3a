"""``hessdiag inspect``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hessdiag.cli.failures import failures_explained, warnings_hidden
from hessdiag.cli.streams import results_alone_on_stdout
from hessdiag.spec.names import Weights


def inspect(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A file, or a folder of a model.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
    weights: Annotated[Weights, typer.Option(help="The weights as trained, or their moving average.")] = "model",
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load a checkpoint that is a program: it may run anything.")
    ] = False,
    allow_global: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Let the checkpoint's pickle call this name; repeatable."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Tell what is in a checkpoint, and what would be refused, without running anything from it."""
    with failures_explained(debug), warnings_hidden(unless=debug):
        with results_alone_on_stdout():
            from hessdiag.loading import Reading
            from hessdiag.loading.inspection import inspect as look
            from hessdiag.memory import memory_errors_explained

            allowed = Reading(trust=trust_checkpoint, allowed_globals=tuple(allow_global or ()), weights=weights)
            with memory_errors_explained():
                found = look(checkpoint, str(checkpoint), allowed)
        if as_json:
            sys.stdout.write(json.dumps(found.to_dict(), indent=2) + "\n")
        else:
            from hessdiag.reports import terminal
            from hessdiag.reports.console import stdout_console

            stdout_console().print(terminal.render_checkpoint(found))
