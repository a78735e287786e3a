"""What a report is drawn on: its width, and the characters that its encoding can show.

Every string of the report passes through :class:`Canvas`; there, and only there, it is decided what an encoding
can show, and control characters in names out of a checkpoint are made visible and harmless.
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
        **dict(zip("×○●", "xo*", strict=True)),
        "λ": "lambda ",
        "σ": "sigma",
        "±": "+/-",
        "²": "^2",
        "‖": "||",
    }
)
_FANCY = "".join(chr(code) for code in _ASCII)
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp")  # escape sequences, right-to-left overrides, odd line ends


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

    def literal(self, name: str) -> str:
        """A name or a path, in which nothing may be replaced: what cannot be shown is escaped."""
        visible = "".join(_escape(c) if unicodedata.category(c) in _INVISIBLE else c for c in name)
        return visible.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def plain(self, words: str) -> str:
        """The report's own words, with ASCII for the symbols that the encoding lacks. Newlines stay."""
        shown = words if self._shows(_FANCY) else words.translate(_ASCII)
        return "\n".join(self.literal(line) for line in shown.split("\n"))

    def text(self, words: str, style: StyleType = "") -> Text:
        """The same for rich, which must not take square brackets for markup."""
        return Text(self.plain(words), style=style)

    def _shows(self, content: str) -> bool:
        try:
            content.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
