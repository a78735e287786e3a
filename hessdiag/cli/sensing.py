"""``hessdiag nso sensing``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessdiag.cli.failures import INTERRUPTED, failures_explained, no_more_interrupts, warnings_hidden
from hessdiag.cli.streams import results_alone_on_stdout, say
from hessdiag.errors import UsageError
from hessdiag.files import refuse_unwritable, write_atomically

if TYPE_CHECKING:
    from hessdiag.simulation import Sensing, SensingSettings


def sensing(
    dimension: Annotated[int | None, typer.Option(help="d, of the matrix to find. (default: 20)")] = None,
    rank: Annotated[int | None, typer.Option(help="Of that matrix. (default: 2)")] = None,
    width: Annotated[int | None, typer.Option(help="Columns of the weights. (default: d)")] = None,
    examples: Annotated[int | None, typer.Option(help="n, measurements. (default: 5 d times the rank)")] = None,
    steps: Annotated[int | None, typer.Option(help="Of each method. (default: 3000)")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the true gradient. (default: 0.0025)")] = None,
    sigma: Annotated[
        float | None, typer.Option(help="The noise's standard deviation for each weight. (default: 0.05)")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of measurements, start and noise.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds, from --seed on: means and spreads.")] = 1,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="The paper's size: d 100, rank 5, n 2500, lr .00125; with sigma .08, since at the printed .016 the "
            "order of the methods does not show. Takes minutes.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the JSON document there, after each seed.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves there: a .png, or an .svg. (extra: plot)")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No remarks and no progress on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Simulate matrix sensing: GD, WP-GD and NSO from one start, with exact sharpness beside its estimates.

    A low-rank matrix is to be found from random measurements of it. More than one solution fits them;
    NSO ends at one that predicts fresh measurements better: NSO < WP-GD < GD in validation loss.
    """
    with failures_explained(debug), warnings_hidden(unless=debug):
        from hessdiag.simulation import PAPER, SensingSettings

        chosen = (PAPER if paper else SensingSettings()).changed(
            dimension=dimension, rank=rank, width=width, examples=examples, steps=steps, lr=lr, sigma=sigma
        )
        if seed < 0 or seeds < 1:
            raise UsageError(f"found --seed {seed} and --seeds {seeds}, expected at least 0 and at least 1")
        _refuse_what_cannot_be_saved(out, png)
        if paper and sigma is None and not quiet:
            say(f"sigma {chosen.sigma:g}: at the .016 that the paper prints, NSO < WP-GD < GD does not show")
        found = _simulated(chosen, range(seed, seed + seeds), out, quiet)
        if png is not None:
            _draw(found, png)
        _print(found, [str(path) for path in (out, png) if path is not None], as_json)


def _refuse_what_cannot_be_saved(out: Path | None, png: Path | None) -> None:
    """What could not be written or drawn is told before the work."""
    for path in (out, png):
        if path is not None:
            refuse_unwritable(path)
    if png is not None:
        from hessdiag.loading.extras import import_extra
        from hessdiag.reports.plots import refuse_other_formats

        refuse_other_formats(png)
        import_extra("matplotlib", "--png")


def _simulated(settings: SensingSettings, seeds: range, out: Path | None, quiet: bool) -> Sensing:
    """The whole simulation under a progress bar; what is finished is on disk before the next seed begins."""
    from hessdiag.cli.progress import progress
    from hessdiag.cost import Meter

    found: Sensing | None = None
    with results_alone_on_stdout(), progress(quiet) as stage:
        try:
            stage("loading")
            from hessdiag.memory import memory_errors_explained
            from hessdiag.nso.sensing import sensing as simulate

            meter = Meter()
            stage("simulating", meter)
            with memory_errors_explained():
                for found in simulate(settings, seeds, meter):
                    if out is not None:
                        write_atomically(out, _document(found))
        except KeyboardInterrupt:
            no_more_interrupts()
            stage("")
            say(_interrupted(found, len(seeds), out))
            raise typer.Exit(INTERRUPTED) from None
    assert found is not None
    return found


def _interrupted(found: Sensing | None, seeds: int, out: Path | None) -> str:
    if found is None:
        return "interrupted: no seed was finished"
    kept = "not saved, for want of --out" if out is None else f"saved in {out}"
    return f"interrupted: {len(found.runs)} of {seeds} seeds finished and {kept}"


def _document(found: Sensing) -> str:
    return json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"


def _draw(found: Sensing, path: Path) -> None:
    from hessdiag.reports.plots import save_curves

    s = found.settings
    title = f"Matrix sensing, d = {s.dimension}, rank {s.rank}, n = {s.examples}, lr {s.lr:g}, σ = {s.sigma:g}"
    save_curves(path, found.curves, title=title)


def _print(found: Sensing, saved_to: list[str], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(_document(found))
        return
    from hessdiag.reports import terminal
    from hessdiag.reports.console import stdout_console

    stdout_console().print(terminal.render_sensing(found, saved_to))
