"""The options that every measuring command takes, declared once."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from hessdiag.cli.failures import failures_explained

__all__ = ["Common", "Request", "measuring"]

Dtype = Literal["float32", "float64", "bfloat16"]


@dataclass(frozen=True)
class Common:
    """The common options, with their defaults."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")] = False
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the JSON report there. (default: .hessdiag/last-COMMAND.json)"),
    ] = None
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override the spec; repeatable.")
    ] = None
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights to load instead of the spec's.", exists=True)
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of all random probes; never changes H.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[Dtype | None, typer.Option(help="Measure in this precision. (default: as the model is built)")] = (
        None
    )
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a batch.")] = None
    max_examples: Annotated[int | None, typer.Option(min=1, help="Measure on a random subset.")] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False


@dataclass(frozen=True)
class Request:
    """What the person asked for: a target, the common options, and overrides from the command's own options."""

    command: str
    target: Path
    common: Common

    def overrides(self, **own: Any) -> list[str]:
        """``KEY.PATH=VALUE`` texts for the spec; what was not given (None) is left out, the last ones win.

        Args:
            own: the command's own options; ``a__b`` stands for the key path ``a.b``.
        """
        values = {
            "model.checkpoint": str(self.common.checkpoint.absolute()) if self.common.checkpoint else None,
            "data.batch_size": self.common.batch_size,
            "data.max_examples": self.common.max_examples,
        } | {key.replace("__", "."): value for key, value in own.items()}
        given = [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]
        return [*(self.common.settings or []), *given]

    @property
    def out(self) -> Path:
        """Where the report goes."""
        return self.common.out or Path(".hessdiag") / f"last-{self.command}.json"


def measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``(request, own options...)`` a TARGET and the common options, and end it properly."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    hints = get_type_hints(Common, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    target = inspect.Parameter(
        "target", keyword, annotation=Annotated[Path, typer.Argument(metavar="TARGET", help="A spec (audit.yaml).")]
    )
    common = [inspect.Parameter(f.name, keyword, default=f.default, annotation=hints[f.name]) for f in fields(Common)]
    parameters = [target, *(p.replace(kind=keyword) for p in own), *common]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        shared = Common(**{field.name: values.pop(field.name) for field in fields(Common)})
        request = Request(command.__name__, values.pop("target"), shared)
        with failures_explained(shared.debug):
            command(request, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run
