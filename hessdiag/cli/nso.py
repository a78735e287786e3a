"""``hessdiag nso``: training towards flat minima, and what it shows."""

from __future__ import annotations

import typer

from hessdiag.cli.sensing import sensing
from hessdiag.cli.train import train

__all__ = ["nso"]

nso = typer.Typer(
    name="nso",
    help="Train towards flat minima: noise stability optimization, and what it is compared with.",
    no_args_is_help=True,
)
for command in (train, sensing):
    nso.command()(command)
