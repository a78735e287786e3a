"""What a person looks at, for any command: the sections that were measured, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment

from hessdiag.findings import Examination, Inspection
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.checkpoint import checkpoint
from hessdiag.reports.terminal.crosscheck import crosscheck
from hessdiag.reports.terminal.density import density
from hessdiag.reports.terminal.doctor import doctor
from hessdiag.reports.terminal.eigenvalues import eigenvalues
from hessdiag.reports.terminal.footer import footer
from hessdiag.reports.terminal.gap import gap
from hessdiag.reports.terminal.header import header
from hessdiag.reports.terminal.layout import alert
from hessdiag.reports.terminal.sensing import sensing
from hessdiag.reports.terminal.trace import trace
from hessdiag.reports.terminal.training import training
from hessdiag.results import Report
from hessdiag.simulation import Sensing

__all__ = ["render", "render_checkpoint", "render_examination", "render_sensing", "render_training"]


def render(report: Report, saved_to: str | None = None) -> RenderableType:
    """The report for a rich console; it takes its width and its characters from the console that prints it."""
    return _Page(lambda canvas: _sections(report, saved_to, canvas))


def render_checkpoint(found: Inspection) -> RenderableType:
    """What is in a checkpoint, likewise."""
    return _Page(lambda canvas: checkpoint(found, canvas))


def render_examination(found: Examination) -> RenderableType:
    """The state of the environment, likewise."""
    return _Page(lambda canvas: doctor(found, canvas))


def render_training(history: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The history of a training run, likewise."""
    return _Page(lambda canvas: training(history, canvas))


def render_sensing(found: Sensing, saved_to: Sequence[str] = ()) -> RenderableType:
    """The matrix-sensing simulation, likewise."""
    return _Page(lambda canvas: sensing(found, saved_to, canvas))


@dataclass(frozen=True)
class _Page:
    sections: Callable[[Canvas], Iterator[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        canvas = Canvas.of(console, options)
        content = Group(*self.sections(canvas))
        for segments in console.render_lines(content, options.update(height=None), pad=False):
            yield from _without_trailing_space(segments)
            yield Segment.line()


def _sections(report: Report, saved_to: str | None, canvas: Canvas) -> Iterator[RenderableType]:
    yield from header(report, canvas)
    for name in report.sections:
        yield from _RENDERED[name](report, canvas)
        yield from (alert(canvas, caution.text) for caution in report.warnings if caution.section == name)
    yield from footer(report, saved_to, canvas)


_RENDERED: dict[str, Callable[[Any, Canvas], Iterator[RenderableType]]] = {
    "eigenvalues": lambda report, canvas: eigenvalues(report.eigenvalues, report.target.parameters, canvas),
    "trace": lambda report, canvas: trace(report.trace, canvas),
    "gap": lambda report, canvas: gap(report.gap, canvas),
    "density": lambda report, canvas: density(report.density, canvas),
    "crosscheck": lambda report, canvas: crosscheck(report.crosscheck, canvas),
}


def _without_trailing_space(segments: list[Segment]) -> list[Segment]:
    """Tables fill their last column with spaces, which a file and a diff are better without."""
    kept = list(segments)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = kept[-1]._replace(text=kept[-1].text.rstrip())
    return kept
