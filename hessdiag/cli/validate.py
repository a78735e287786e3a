"""``hessdiag validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hessdiag.cli.failures import failures_explained
from hessdiag.cli.streams import say
from hessdiag.errors import UsageError


def validate(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Specs to check.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override the spec; repeatable.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Check specs without loading anything they name: every fault at once, with its place."""
    from hessdiag.spec import load_spec

    faults = []
    with failures_explained(debug):
        for path in specs:
            try:
                load_spec(path, settings or [])
                typer.echo(f"{path}: valid")
            except UsageError as error:
                faults.append(str(error))
    for fault in faults:
        say(fault)
    if faults:
        raise typer.Exit(UsageError.exit_code)
