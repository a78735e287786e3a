"""The few shapes that every section is made of: a heading, a line, a note, a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import RenderableType
from rich.padding import Padding
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from hessdiag.reports.terminal.canvas import Canvas

__all__ = ["GAP", "INDENT", "Cell", "Column", "alert", "heading", "line", "note", "split_name", "table"]

INDENT = 2
GAP = 2  # between two columns of a table
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


def line(canvas: Canvas, content: str, style: StyleType = "") -> RenderableType:
    """A line of a section's text."""
    return _indented(canvas.text(content, style))


def note(canvas: Canvas, content: str) -> RenderableType:
    """How something was measured: there for who looks, quiet for who does not."""
    return line(canvas, content, "dim")


def alert(canvas: Canvas, content: str) -> RenderableType:
    """What a person must not overlook."""
    return line(canvas, content, "yellow")


def table(canvas: Canvas, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> RenderableType:
    """A table without lines; its columns are as wide as what stands in them."""
    result = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=any(c.title for c in columns))
    for column in columns:
        result.add_column(
            canvas.text(column.title, "dim"), justify=column.justify, no_wrap=not column.folded, overflow="fold"
        )
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else canvas.text(cell) for cell in row))
    return _indented(result)


def split_name(canvas: Canvas, name: str, width: int) -> Text:
    """A dotted name or a path in lines of at most ``width``, broken after dots and slashes where possible."""
    name = canvas.plain(name)
    lines = [""]
    for part in re.findall(r"[^./\\]*[./\\]?", name):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return Text("\n".join(lines), overflow="fold")  # rich folds a part that alone is too long


def _indented(content: RenderableType) -> RenderableType:
    return Padding(content, (0, 0, 0, INDENT), expand=False)  # expanding would fill a pipe's lines with spaces
