"""The trace, and where in the model it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import RenderableType

from hessdiag.reports.numbers import align, count, interval, measured, number, percent
from hessdiag.reports.terminal.bars import signed_bars
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import GAP, INDENT, Cell, Column, heading, line, note, split_name, table
from hessdiag.results import GroupTrace, TracePart, TraceResult

__all__ = ["trace"]

_NAME = "parameter group"
_TITLES = ("size", "trace ± stderr", "share")
_SHOWN = 12
_FOLDED = 40  # where names must be folded, lines of this length read well
_BAR = (8, 24)  # the narrowest bar that is still a bar, and the widest that is worth the room


def trace(result: TraceResult, canvas: Canvas) -> Iterator[RenderableType]:
    """The whole with its interval, then the largest groups as bars."""
    yield heading(canvas, "Trace")
    yield line(
        canvas,
        f"Tr[H] = {measured(result.value, result.stderr)} (stderr), {number(100 * result.confidence, 4)} % interval "
        f"{interval(*result.interval, result.stderr)}",
    )
    if result.gauss_newton is not None and result.residual is not None:
        yield _parts(result.gauss_newton, result.residual, canvas)
        spent = []
    else:
        spent = [count(result.probes, "probe"), count(result.matvecs, "product")]
    yield note(canvas, ", ".join([result.method, *spent, *["converged"] * result.converged]))
    if result.reason:
        yield note(canvas, result.reason)
    if result.groups:
        yield from _groups(result, canvas)


def _parts(gauss_newton: TracePart, residual: TracePart, canvas: Canvas) -> RenderableType:
    values = align([measured(part.value, part.stderr) for part in (gauss_newton, residual)])
    products = count(residual.passes, "product") if residual.passes else "its diagonal is zero"
    spent = [count(gauss_newton.passes, "gradient"), products]
    rows = list(zip(["Gauss-Newton part", "residual part"], values, spent, strict=True))
    return table(canvas, [Column("", "left"), Column(""), Column("", "left")], rows)


def _groups(result: TraceResult, canvas: Canvas) -> Iterator[RenderableType]:
    ranked = sorted(result.groups, key=lambda group: -abs(group.value))
    shown, rest = ranked[:_SHOWN], ranked[_SHOWN:]
    names = [canvas.literal(group.name) for group in shown]
    columns = [
        [count(group.parameters) for group in shown],
        align([measured(group.value, group.stderr) for group in shown]),
        [_share(group.value, result) for group in shown],
    ]
    width, bar = _widths(names, columns, canvas)
    cells: list[Sequence[Cell]] = [[split_name(name, width, hang=2) for name in names], *columns]
    titles = [Column(_NAME, "left"), *map(Column, _TITLES)]
    if bar >= _BAR[0]:
        cells.append(signed_bars(canvas, [group.value for group in shown], bar))
        titles.append(Column("", "left"))
    yield canvas.text("")
    yield table(canvas, titles, list(zip(*cells, strict=True)))
    if rest:
        yield note(canvas, _rest(rest, result))


def _share(value: float, result: TraceResult) -> str:
    low, high = result.interval
    # A share of a whole that may as well be zero says nothing.
    return "–" if low <= 0 <= high else percent(value / result.value)


def _rest(rest: Sequence[GroupTrace], result: TraceResult) -> str:
    value, bound = sum(group.value for group in rest), sum(group.stderr for group in rest)
    groups = "1 more group" if len(rest) == 1 else f"{count(len(rest))} more groups, together"
    # Groups share their probes, so their errors are not independent; the sum of the errors bounds that of the sum.
    return f"and {groups} {measured(value, bound)} at most ({_share(value, result)}); all are in the JSON"


def _widths(names: Sequence[str], columns: Sequence[Sequence[str]], canvas: Canvas) -> tuple[int, int]:
    """How wide the names and the bars may be. Names come first; a window too narrow for both has no bars."""
    fixed = sum(
        max(cell_len(canvas.plain(cell)) for cell in (title, *column)) + GAP
        for title, column in zip(_TITLES, columns, strict=True)
    )
    room = canvas.width - INDENT - fixed - 2 * GAP
    lengths = sorted(cell_len(name) for name in names)
    limit = max(room - _BAR[0], len(_NAME))
    if lengths[-1] <= limit:
        width = max(lengths[-1], len(_NAME))
    else:  # one name of monstrous length must not push all the bars away
        width = min(max([_FOLDED, *(length for length in lengths if length <= limit)]), limit)
    return width, min(room - width, _BAR[1])
