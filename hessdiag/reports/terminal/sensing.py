"""The matrix-sensing simulation: its curves, where they end, and the exact sharpness beside its estimates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from hessdiag.reports.numbers import Measured, align, count, duration, measured, number
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.curves import curves
from hessdiag.reports.terminal.layout import Column, heading, note, split_name, table
from hessdiag.simulation import Sensing, SensingMethod

__all__ = ["sensing"]

_DIGITS = 5  # of what has no error
_ORDER = "NSO < WP-GD < GD in validation loss"


def sensing(found: Sensing, saved_to: Sequence[str], canvas: Canvas) -> Iterator[RenderableType]:
    """The facts, the curves, both tables, the verdict on the order, and the files that were written."""
    yield canvas.text("hessdiag nso sensing", "bold")
    rows = [(canvas.text(name, "dim"), fact) for name, fact in _facts(found).items()]
    yield table(canvas, [Column("", "left"), Column("", "left", folded=True)], rows)
    for title, named in found.curves.items():
        yield heading(canvas, title + (f", mean of {len(found.runs)} seeds" if len(found.runs) > 1 else ""))
        yield from curves(named, canvas)
    yield from _losses(found, canvas)
    yield from _sharpness(found, canvas)
    yield canvas.text("")
    yield _verdict(found, canvas)
    yield canvas.text(f"Gradients over the data: {count(found.cost.gradient)}; {duration(found.cost.seconds)}")
    for path in saved_to:
        yield Text.assemble("Saved to ", split_name(canvas.literal(path), canvas.width - len("Saved to ")))


def _facts(found: Sensing) -> dict[str, str]:
    s = found.settings
    seeds = [run.seed for run in found.runs]
    return {
        "to find": f"a matrix {s.dimension} x {s.dimension} of rank {s.rank}, from {count(s.examples, 'measurement')}",
        "weights": f"W {s.dimension} x {s.width}, of W W^T",
        "training": f"{count(s.steps, 'step')}, lr {number(s.lr)}, noise σ {number(s.sigma)}",
        "computed": "float64, seed " + (f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"),
    }


def _losses(found: Sensing, canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, f"Losses after {count(found.settings.steps, 'step')}")
    columns = {
        "gradients": [count(method.gradients) for method in found.runs[0].methods],
        "training": _over_seeds(found, lambda method: method.final_training_loss),
        "validation": _over_seeds(found, lambda method: method.final_validation_loss),
    }
    yield _by_method(found, columns, canvas)
    yield note(canvas, "means over the last tenth of the steps; validation: expected on a fresh measurement, exact")


def _sharpness(found: Sensing, canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, "Sharpness of the last weights")
    columns = {
        "Tr[H]": _over_seeds(found, lambda method: method.trace),
        "estimated": _over_seeds(
            found, lambda method: method.estimated_trace.value, lambda method: method.estimated_trace.stderr
        ),
        "λ1": _over_seeds(found, lambda method: method.lambda_1),
        "estimated ": _over_seeds(
            found,
            lambda method: method.estimated_eigenvalues.largest[0].value,
            lambda method: method.estimated_eigenvalues.largest[0].residual_norm,
        ),
    }
    yield _by_method(found, columns, canvas)
    about = "mean ± standard deviation over the seeds" if len(found.runs) > 1 else "± standard error, ± ‖Hv − λv‖"
    yield note(canvas, f"exact by closed form, estimated as by hessdiag trace and eigs; {about}")


def _over_seeds(
    found: Sensing, wanted: Callable[[SensingMethod], float], error: Callable[[SensingMethod], float] | None = None
) -> list[str]:
    """A number of each method: of one seed with its error if it has one, of several their mean and spread."""
    cells = []
    for methods in found.by_method():
        values = [wanted(method) for method in methods]
        if len(values) > 1:
            cells.append(measured(statistics.fmean(values), statistics.stdev(values)))
        elif error is not None:
            cells.append(measured(values[0], error(methods[0])))
        else:
            cells.append(Measured(number(values[0], _DIGITS), ""))
    return align(cells)


def _by_method(found: Sensing, columns: dict[str, list[str]], canvas: Canvas) -> RenderableType:
    names = [method.name for method in found.runs[0].methods]
    titles = [Column("", "left"), *map(Column, columns)]
    return table(canvas, titles, list(zip(names, *columns.values(), strict=True)))


def _verdict(found: Sensing, canvas: Canvas) -> RenderableType:
    runs = len(found.runs)
    if runs == 1:
        return canvas.text(f"{_ORDER}." if found.ordered else f"Not {_ORDER}, with this seed.", _style(found))
    return canvas.text(f"{_ORDER}: with {found.ordered} of {runs} seeds.", _style(found))


def _style(found: Sensing) -> str:
    return "green" if found.ordered == len(found.runs) else "yellow"
