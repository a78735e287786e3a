"""``hessdiag init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hessdiag.cli.failures import failures_explained, warnings_hidden
from hessdiag.cli.streams import results_alone_on_stdout
from hessdiag.errors import Diagnostic, HessdiagError, SpecError, UsageError

_SPEC = "audit.yaml"
_MARK = "# FILL_IN:"


def init(
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights: a file, or the folder of a model.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="The data: a file or a folder, or file.py:function.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="FACTORY", help="What builds the network, as model.py:build.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Where to write. (default: {_SPEC}; of an example, a folder of its name)"),
    ] = None,
    example: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write a whole example with its files instead: digits.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Write a commented starter spec by asking the checkpoint and the data; or a whole example."""
    with failures_explained(debug), warnings_hidden(unless=debug):
        if example is not None:
            if checkpoint is not None or data is not None or model is not None:
                raise UsageError("--example: brings its own checkpoint, data and model; it goes with --out and --force")
            _write_example(example, out, force)
            return
        _write_spec(out or Path(_SPEC), checkpoint, data, model, force)


def _write_spec(out: Path, checkpoint: Path | None, data: str | None, model: str | None, force: bool) -> None:
    from hessdiag.files import refuse_unwritable, write_atomically

    _refuse_existing(out, force)
    for option, named in (("--checkpoint", checkpoint), ("--data", data)):
        if named is not None and out.exists() and Path(named).exists() and out.samefile(named):
            raise UsageError(f"--out {out}: is what {option} names: write the spec to another file")
    refuse_unwritable(out)
    with results_alone_on_stdout():
        from hessdiag.memory import memory_errors_explained
        from hessdiag.workflows.starter import starter_spec

        with memory_errors_explained():
            starter = starter_spec(out, checkpoint=checkpoint, data=data, model=model)
    write_atomically(out, starter.text)
    typer.echo(f"wrote {out}")
    left = _left_open(out, starter.text)
    if left:
        typer.echo("to fill in:")
        for fault in left:
            typer.echo(f"  {fault}")
    _say_next("hessdiag validate" if left else "hessdiag audit", out, *(() if left else starter.options))


def _left_open(out: Path, text: str) -> list[str]:
    """What ``hessdiag validate`` says of the spec, and the marks that it does not come to yet."""
    from hessdiag.spec import load_spec

    faults: tuple[Diagnostic, ...] = ()
    try:
        load_spec(out)
    except SpecError as error:
        faults = error.diagnostics
    lines = {fault.line for fault in faults}
    marked = [
        Diagnostic(str(out), number, line.index(line.lstrip()[0]) + 1, line.strip().partition("  ")[0] + " to fill in")
        for number, line in enumerate(text.splitlines(), 1)
        if _MARK in line and number not in lines
    ]
    return [str(fault) for fault in sorted([*faults, *marked], key=lambda fault: fault.line or 0)]


def _write_example(name: str, out: Path | None, force: bool) -> None:
    from hessdiag.workflows.starter.examples import EXAMPLES, example_files

    if name not in EXAMPLES:
        raise UsageError(f"--example {name}: found no such example, expected {' or '.join(EXAMPLES)}")
    folder = out or Path(name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: found a file, expected a folder to write the example to: name one with --out")
    for file in EXAMPLES[name]:
        _refuse_existing(folder / file, force)
    try:
        sources = example_files(name)
    except FileNotFoundError:
        raise HessdiagError(f"the example {name} is not in this installation: install hessdiag again") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            (folder / source.name).write_bytes(source.read_bytes())
    except OSError as error:
        raise UsageError(f"{folder}: could not be written: {error.strerror or error}: name another folder") from error
    for source in sources:
        typer.echo(f"wrote {folder / source.name}")
    _say_next("hessdiag audit", folder / _SPEC)


def _refuse_existing(path: Path, force: bool) -> None:
    if not force and (path.exists() or path.is_symlink()) and not path.is_dir():
        raise UsageError(f"{path}: exists already: name another with --out, or overwrite it with --force")


def _say_next(command: str, path: Path, *options: str) -> None:
    typer.echo(f"next: {' '.join([command, shlex.quote(str(path)), *options])}")
