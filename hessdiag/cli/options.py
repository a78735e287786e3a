"""A measuring command from a function of its own options: TARGET and the common options are added to it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from hessdiag.cli.failures import failures_explained, warnings_hidden
from hessdiag.cli.request import Common, Request

__all__ = ["Request", "measuring"]


def measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``(request, own options...)`` a TARGET and the common options, and end it properly."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    hints = get_type_hints(Common, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    target = inspect.Parameter(
        "target",
        keyword,
        annotation=Annotated[
            Path,
            typer.Argument(metavar="TARGET", help="A spec (audit.yaml), a trained run, or a checkpoint with --data."),
        ],
    )
    common = [inspect.Parameter(f.name, keyword, default=f.default, annotation=hints[f.name]) for f in fields(Common)]
    parameters = [target, *(p.replace(kind=keyword) for p in own), *common]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        shared = Common(**{field.name: values.pop(field.name) for field in fields(Common)})
        request = Request(command.__name__, values.pop("target"), shared)
        with failures_explained(shared.debug), warnings_hidden(unless=shared.debug):
            command(request, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run
