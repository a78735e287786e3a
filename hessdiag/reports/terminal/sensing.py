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
    s, first, last = found.settings, found.runs[0].seed, found.runs[-1].seed
    return {
        "to find": f"a matrix {s.dimension} x {s.dimension} of rank {s.rank}, from {count(s.examples, 'measurement')}",
        "as": f"W W^T with W {s.dimension} x {s.width}",
        "training": f"{count(s.steps, 'step')}, lr {number(s.lr)}, noise σ {number(s.sigma)}",
        "computed": "float64, " + (f"seed {first}" if first == last else f"seeds {first} to {last}"),
    }


def _losses(found: Sensing, canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, f"Losses after {count(found.settings.steps, 'step')}")
    gradients = [count(method.gradients) for method in found.runs[0].methods]
    training = _over_seeds(found, 4, lambda method: method.final_training_loss)
    validation = _over_seeds(found, 4, lambda method: method.final_validation_loss)
    columns = [("gradients", gradients), ("training", training), ("validation", validation)]
    yield _by_method(found, columns, canvas)
    yield note(canvas, "means over the last tenth of the steps; validation: expected on a fresh measurement, exact")


def _sharpness(found: Sensing, canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, "Sharpness of the last weights")
    trace, eigenvalue = _estimates(found)
    columns = [
        ("Tr[H]", _over_seeds(found, 6, lambda method: method.trace)),
        ("estimated", trace),
        ("λ1", _over_seeds(found, 6, lambda method: method.lambda_1)),
        ("estimated", eigenvalue),
    ]
    yield _by_method(found, columns, canvas)
    about = "± standard error, ± ‖Hv − λv‖" if len(found.runs) == 1 else "mean ± standard deviation over the seeds"
    yield note(canvas, f"exact by closed form, estimated as by hessdiag trace and eigs; {about}")


def _estimates(found: Sensing) -> tuple[list[str], list[str]]:
    """The trace and the largest eigenvalue: of one seed with their errors, of several their mean and spread."""
    if len(found.runs) > 1:
        return (
            _over_seeds(found, 6, lambda method: method.estimated_trace.value),
            _over_seeds(found, 6, lambda method: method.estimated_eigenvalues.largest[0].value),
        )
    traces = [method.estimated_trace for method in found.runs[0].methods]
    pairs = [method.estimated_eigenvalues.largest[0] for method in found.runs[0].methods]
    return (
        align([measured(trace.value, trace.stderr) for trace in traces]),
        align([measured(pair.value, pair.residual_norm) for pair in pairs]),
    )


def _over_seeds(found: Sensing, digits: int, wanted: Callable[[SensingMethod], float]) -> list[str]:
    """A number of each method: of one seed to so many digits, of several their mean and spread."""
    each = [[wanted(method) for method in methods] for methods in found.by_method()]
    if len(found.runs) == 1:
        return align([Measured(number(value, digits), "") for (value,) in each])
    return align([measured(statistics.fmean(values), statistics.stdev(values)) for values in each])


def _by_method(found: Sensing, columns: Sequence[tuple[str, list[str]]], canvas: Canvas) -> RenderableType:
    names = [method.name for method in found.runs[0].methods]
    titles = [Column("", "left"), *(Column(title) for title, _ in columns)]
    return table(canvas, titles, list(zip(names, *(cells for _, cells in columns), strict=True)))


def _verdict(found: Sensing, canvas: Canvas) -> RenderableType:
    runs = len(found.runs)
    if runs == 1:
        return canvas.text(f"{_ORDER}." if found.ordered else f"Not {_ORDER}, with this seed.", _style(found))
    return canvas.text(f"{_ORDER}: with {found.ordered} of {runs} seeds.", _style(found))


def _style(found: Sensing) -> str:
    return "green" if found.ordered == len(found.runs) else "yellow"
