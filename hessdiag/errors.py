"""The few kinds of failure. Each carries its exit code; each message says what was found, expected, and to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CheckpointError",
    "DataError",
    "Diagnostic",
    "HessdiagError",
    "MeasurementError",
    "RefusedError",
    "SpecError",
    "UsageError",
]

_MOST_LINES = 50


class HessdiagError(Exception):
    """Anything that hessdiag refuses or cannot do; ``exit_code`` is what the command line ends with."""

    exit_code = 3


class UsageError(HessdiagError):
    """The request itself is wrong: an option, a spec, a file that is named but does not exist (exit 2).

    Args:
        message: what was found, expected, and to do.
        key: the spec's key that is to blame, where the fault shows only when what it names is opened; the
            command line turns it into ``file:line:column``.
    """

    exit_code = 2

    def __init__(self, message: str, key: str | None = None) -> None:
        self.key = key
        super().__init__(message if key is None else f"{key}: {message}")


@dataclass(frozen=True)
class Diagnostic:
    """One complaint about one place in a file; line and column count from 1."""

    file: str
    line: int | None
    column: int | None
    message: str

    def __str__(self) -> str:
        """``file:line:column: message``, the form that editors and CI systems make clickable."""
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.message}"


class SpecError(UsageError):
    """A spec with one or more faults, all of them at once (exit 2); its text has the first fifty."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        lines = [str(d) for d in self.diagnostics[:_MOST_LINES]]
        if len(self.diagnostics) > _MOST_LINES:
            lines.append(f"{self.diagnostics[0].file}: and {len(self.diagnostics) - _MOST_LINES} more faults")
        super().__init__("\n".join(lines))


class CheckpointError(HessdiagError):
    """A checkpoint that is damaged, refused, or does not fit the model (exit 3)."""


class RefusedError(CheckpointError):
    """A whole checkpoint that is not loaded: it would run code, or has no second derivatives as stored (exit 3)."""


class DataError(HessdiagError):
    """Data that cannot be read, are empty, or do not fit the model and the loss (exit 3)."""


class MeasurementError(HessdiagError):
    """The quantity could not be measured: loss not finite, no second derivative, out of memory (exit 3)."""
