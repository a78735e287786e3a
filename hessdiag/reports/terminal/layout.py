"""The few shapes that every section is made of: a heading, a line, a note, a table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, chop_cells
from rich.console import RenderableType
from rich.padding import Padding
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from hessdiag.reports.terminal.canvas import Canvas

__all__ = ["GAP", "INDENT", "Cell", "Column", "alert", "heading", "line", "note", "split_name", "table"]

INDENT = 2
GAP = 2  # between two columns of a table
_NARROW = 16  # a folded column stays readable down to this
Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column of a table. Only columns of words are ``folded`` when the window is narrow; numbers never are."""

    title: str
    justify: Literal["left", "right"] = "right"
    folded: bool = False


def heading(canvas: Canvas, title: str) -> RenderableType:
    """A section's name, with an empty line above it."""
    return canvas.text("\n" + title, "bold")


def line(canvas: Canvas, content: Cell, style: StyleType = "") -> RenderableType:
    """A line of a section's text."""
    return _indented(content if isinstance(content, Text) else canvas.text(content, style))


def note(canvas: Canvas, content: str) -> RenderableType:
    """How something was measured: there for who looks, quiet for who does not."""
    return line(canvas, content, "dim")


def alert(canvas: Canvas, content: str) -> RenderableType:
    """What a person must not overlook."""
    return line(canvas, content, "yellow")


def table(canvas: Canvas, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> RenderableType:
    """A table without lines; its columns are as wide as what stands in them."""
    cells = [[cell if isinstance(cell, Text) else canvas.text(cell) for cell in row] for row in rows]
    titles = [canvas.text(column.title) for column in columns]
    widths = [max(map(_width, texts)) for texts in zip(titles, *cells, strict=True)]
    needed = sum(0 if column.folded else width + GAP for column, width in zip(columns, widths, strict=True))
    # In a very narrow window rich would crop what may not wrap, and a cropped number is a wrong one.
    fits = needed + _NARROW * any(column.folded for column in columns) <= canvas.width
    result = Table(
        box=None, header_style="dim", padding=(0, GAP, 0, 0), pad_edge=False, show_header=any(map(_width, titles))
    )
    for column, title in zip(columns, titles, strict=True):
        result.add_column(title, justify=column.justify, no_wrap=fits and not column.folded, overflow="fold")
    for row in cells:
        result.add_row(*row)
    return _indented(result)


def split_name(name: str, width: int, hang: int = 0) -> Text:
    """A dotted name or a path in lines of at most ``width``, broken after dots and slashes where possible.

    All lines but the first are indented by ``hang``.
    """
    lines = [""]
    parts = re.findall(r"[^./\\ ]*[./\\ ]?", name)
    for part in itertools.chain.from_iterable(chop_cells(part, max(width - hang, 1)) for part in parts if part):
        if lines[-1].strip() and cell_len(lines[-1] + part) > width:
            lines.append(" " * hang)
        lines[-1] += part
    return Text("\n".join(lines))


def _width(text: Text) -> int:
    return max(cell_len(line) for line in text.plain.split("\n"))


def _indented(content: RenderableType) -> RenderableType:
    return Padding(content, (0, 0, 0, INDENT), expand=False)  # expanding would fill a pipe's lines with spaces
