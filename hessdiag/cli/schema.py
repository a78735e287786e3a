"""``hessdiag schema``."""

from __future__ import annotations

import json

import typer

from hessdiag.cli.failures import failures_explained


def schema() -> None:
    """Print the JSON Schema of a spec, for editors that complete and check YAML by it."""
    from hessdiag.spec import json_schema

    with failures_explained():
        typer.echo(json.dumps(json_schema(), indent=2))
