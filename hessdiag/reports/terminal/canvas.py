"""What a report is drawn on: its width, and the characters that its encoding can show.

Every string of the report passes through :meth:`Canvas.text`; there, and only there, it is decided what an
encoding can show, and control characters in names out of a checkpoint are made visible and harmless.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.style import StyleType
from rich.text import Text

__all__ = ["HORIZONTAL", "VERTICAL", "Canvas"]

HORIZONTAL = " ▏▎▍▌▋▊▉█"  # eighths of a cell, from the left
VERTICAL = " ▁▂▃▄▅▆▇█"  # eighths of a cell, from below

# One character for one wherever widths were counted before the text came here (bars, axes, plots).
_ASCII = str.maketrans(
    {
        **dict(zip("▏▎▍▌▋▊▉█▐", "   ######", strict=True)),
        **dict(zip("▁▂▃▄▅▆▇", "...::::", strict=True)),
        **dict(zip("│┤└─┬⋮−–", "|++-+:--", strict=True)),
        "λ": "lambda",
        "σ": "sigma",
        "±": "+/-",
        "²": "^2",
        "‖": "||",
    }
)
_FANCY = "".join(chr(code) for code in _ASCII)


@dataclass(frozen=True)
class Canvas:
    """``width`` is in columns; a pipe's is so large that nothing is ever folded."""

    width: int
    encoding: str

    @classmethod
    def of(cls, console: Console, options: ConsoleOptions) -> Canvas:
        """The canvas that a console offers."""
        return cls(options.max_width, console.encoding)

    @property
    def figure_width(self) -> int:
        """For bars and plots, which would otherwise grow with the window."""
        return min(self.width, 100)

    def plain(self, content: str) -> str:
        """The same content in characters that can be shown."""
        visible = "".join(_escape(c) if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in content)
        if not self._shows(_FANCY):
            visible = visible.translate(_ASCII)
        return visible.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def text(self, content: str, style: StyleType = "") -> Text:
        """Text for rich, taken literally: square brackets are no markup. Newlines break the line."""
        return Text("\n".join(self.plain(line) for line in content.split("\n")), style=style)

    def _shows(self, content: str) -> bool:
        try:
            content.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
