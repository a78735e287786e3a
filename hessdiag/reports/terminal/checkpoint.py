"""What is in a checkpoint: the file, its tensors, what else is inside, and what would be refused."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import RenderableType
from rich.filesize import decimal
from rich.text import Text

from hessdiag.findings import Amount, Inspection, Refusal, TensorInfo
from hessdiag.reports.numbers import count
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.layout import GAP, INDENT, Cell, Column, alert, heading, line, note, split_name, table

__all__ = ["checkpoint"]

_NAMED = 3  # in one sentence; all are in the JSON
_TITLES = ("shape", "dtype", "parameters", "values")


def checkpoint(found: Inspection, canvas: Canvas) -> Iterator[RenderableType]:
    """Facts first, then one row for each tensor."""
    yield canvas.text("hessdiag inspect", "bold")
    yield _facts(found, canvas)
    if found.refusal is not None:
        yield from _refusal(found.refusal, canvas)
    if found.tensors:
        yield from _tensors(found, canvas)
    if found.besides:
        yield heading(canvas, "Besides")
        rows = [(_name(name, canvas, canvas.width // 2), _word(what, canvas)) for name, what in found.besides.items()]
        yield table(canvas, [Column("", "left"), Column("", "left", folded=True)], rows)
    yield from _verdict(found, canvas)


def _facts(found: Inspection, canvas: Canvas) -> RenderableType:
    files = f" in {count(found.files, 'file')}" if found.files != 1 else ""
    facts = {
        "checkpoint": found.path,
        "format": found.format,
        "size": f"{decimal(found.bytes)}{files}",
        "sha256": found.sha256,
        **found.architecture,
    }
    if found.tensors:
        facts["weights"] = _amount(found.total)
        if len(found.by_dtype) > 1:
            facts |= {f"  {dtype}": _amount(amount) for dtype, amount in found.by_dtype.items()}
    width = canvas.width - INDENT - GAP - max(map(len, facts))
    rows = [
        (canvas.text(name, "dim"), _path(fact, canvas, width) if name == "checkpoint" else _word(fact, canvas))
        for name, fact in facts.items()
    ]
    return table(canvas, [Column("", "left"), Column("", "left", folded=True)], rows)


def _path(path: str, canvas: Canvas, width: int) -> Text:
    return split_name(canvas.literal(path), width)


def _word(word: str, canvas: Canvas) -> Text:
    """A word out of the file, in which nothing may be replaced."""
    return Text(canvas.literal(word))


def _amount(amount: Amount) -> str:
    tensors, parameters = count(amount.tensors, "tensor"), count(amount.parameters, "parameter")
    return f"{parameters} in {tensors}, {decimal(amount.bytes)}"


def _tensors(found: Inspection, canvas: Canvas) -> Iterator[RenderableType]:
    numbers = [_numbers(tensor) for tensor in found.tensors]
    fixed = sum(max(map(cell_len, cells)) + GAP for cells in zip(_TITLES, *numbers, strict=True))
    room = max(canvas.width - INDENT - fixed - GAP, 12)
    rows: list[tuple[Cell, ...]] = []
    for tensor, cells in zip(found.tensors, numbers, strict=True):
        values = canvas.text(cells[-1], "" if tensor.finite else "bold red" if tensor.finite is False else "yellow")
        rows.append((_name(tensor.name, canvas, room), *cells[:-1], values))
    yield heading(canvas, "Tensors")
    columns = [Column("name", "left"), Column("shape"), Column("dtype", "left"), Column("parameters")]
    yield table(canvas, [*columns, Column("values", "left")], rows)
    tied = [f"{tensor.name} = {tensor.same_as}" for tensor in found.tensors if tensor.same_as is not None]
    if tied:
        share = "shares its memory" if len(tied) == 1 else "share their memory"
        yield note(canvas, f"{count(len(tied), 'tensor')} {share} with another and counted once: {_some(tied, canvas)}")


def _numbers(tensor: TensorInfo) -> tuple[str, str, str, str]:
    shape = f"({', '.join(map(str, tensor.shape))})"
    return shape, tensor.dtype, count(tensor.parameters), _values(tensor)


def _values(tensor: TensorInfo) -> str:
    if tensor.finite is None:
        return "not looked at"
    kinds = {"NaN": tensor.nan, "inf": tensor.inf}
    return ", ".join(f"{count(amount)} {kind}" for kind, amount in kinds.items() if amount) or "finite"


def _name(name: str, canvas: Canvas, room: int) -> Text:
    return split_name(canvas.literal(name), room, hang=2)


def _some(names: list[str], canvas: Canvas) -> str:
    shown = ", ".join(map(canvas.literal, names[:_NAMED]))
    return f"{shown}, and {count(len(names) - _NAMED)} more" if len(names) > _NAMED else shown


def _verdict(found: Inspection, canvas: Canvas) -> Iterator[RenderableType]:
    """What must not be overlooked."""
    bad = [tensor.name for tensor in found.tensors if tensor.finite is False]
    if bad:
        have = "tensor has" if len(bad) == 1 else "tensors have"
        yield canvas.text("")
        yield line(
            canvas,
            f"{count(len(bad))} {have} values that are not finite: {_some(bad, canvas)}. No Hessian can be measured "
            "with them: take an earlier checkpoint",
            "bold red",
        )


def _refusal(refusal: Refusal, canvas: Canvas) -> Iterator[RenderableType]:
    yield heading(canvas, "Would not be loaded")
    yield alert(canvas, refusal.reason.removeprefix("refused: "))
    if refusal.globals:
        yield canvas.text("")
        yield line(canvas, "Its pickle would call, beyond what makes up tensors:")
        for name in refusal.globals:
            yield line(canvas, split_name("  " + canvas.literal(name), max(canvas.width - INDENT, 12), hang=4))
        yield note(canvas, "nothing of it was run")
