"""What every measuring command does: load, measure under a progress bar, write the report, print it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hessdiag.cli.failures import INTERRUPTED, no_more_interrupts
from hessdiag.cli.progress import progress
from hessdiag.cli.request import Request
from hessdiag.cli.streams import results_alone_on_stdout, say
from hessdiag.cost import Cost
from hessdiag.errors import HessdiagError, UsageError
from hessdiag.files import refuse_unwritable, write_atomically
from hessdiag.reports import json as json_report
from hessdiag.reports import terminal
from hessdiag.reports.console import stdout_console
from hessdiag.reports.numbers import count, duration, rough_duration, roughly
from hessdiag.results import SECTIONS, Report

if TYPE_CHECKING:
    from hessdiag.problem import Problem
    from hessdiag.spec import Spec
    from hessdiag.spec.schema import AuditSpec

__all__ = ["measure", "measure_sections"]

Work = Callable[..., Report]
"""A workflow: called with a problem, the plan, and the keywords that :func:`hessdiag.audit` and the others share:
``seed``, ``previous``, ``watch``, ``told`` and ``started``."""


def measure_sections(request: Request, sections: tuple[str, ...] | None = None) -> None:
    """Measure what the spec's ``audit`` asks for, or ``sections`` of it alone."""
    spec = request.load_spec()
    plan = spec.audit if sections is None else spec.audit.only(sections)

    def work(problem: Problem, plan: AuditSpec, **shared: Any) -> Report:
        from hessdiag.workflows.audit import audit

        return audit(problem, plan, command=request.command, **shared)

    measure(request, spec, plan, work)


def measure(request: Request, spec: Spec, plan: AuditSpec, work: Work) -> None:
    """Load the spec's problem, do the work under a progress bar, write and print the report.

    What is finished is on disk before the next section begins, and an interrupted run goes on from there.
    """
    started = time.perf_counter()
    refuse_unwritable(request.out)
    common, seen = request.common, _Seen(request.out)
    with results_alone_on_stdout(), progress(common.quiet) as stage:
        try:
            stage("loading")
            problem = _loaded(request, spec)
            _refuse_too_many_eigenvalues(request, plan, problem.n)

            def watch(report: Report, section: str) -> None:
                seen.save(report)
                stage(section, problem.meter)

            def told(expected: Cost) -> None:
                if not common.quiet:
                    say(_foretold(expected, plan.max_time))

            report = work(
                problem,
                plan,
                seed=common.seed,
                previous=_previous(request.out),
                watch=watch,
                told=told,
                started=started,
            )
        except KeyboardInterrupt:
            no_more_interrupts()
            stage("")
            say(seen.summary())
            raise typer.Exit(INTERRUPTED) from None
    _print(report, request)


def _loaded(request: Request, spec: Spec) -> Problem:
    """What the spec names; a fault that shows only now gets its place in the spec."""
    from hessdiag.loading import Reading, load_problem

    common = request.common
    reading = Reading(trust=common.trust_checkpoint, allowed_globals=tuple(common.allow_global or ()))
    try:
        return load_problem(spec, device=common.device, dtype=common.dtype, reading=reading)
    except UsageError as error:
        if error.key is None:
            raise
        raise request.placed(error, error.key) from error


def _refuse_too_many_eigenvalues(request: Request, plan: AuditSpec, n: int) -> None:
    """Before anything is measured, and with the place in the spec."""
    asked = plan.eigenvalues
    if asked is not None and asked.top + asked.bottom > n:
        raise request.fault(
            "audit.eigenvalues.top",
            f"found top {asked.top} and bottom {asked.bottom}, expected at most {n} together, "
            f"because {n} selected parameters have {n} eigenvalues: ask for fewer",
        )


def _foretold(expected: Cost, max_time: float | None) -> str:
    """The cost line: what is to come, to the one or two digits that such a guess has."""
    passes = roughly(expected.passes)
    end = "" if max_time is None else f"; cut short {duration(max_time)} after the start"
    return f"about {count(passes, 'pass', 'passes')} over the data, {rough_duration(expected.seconds)}{end}"


class _Seen:
    """The reports that were watched, each written over the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: Report | None = None

    def save(self, report: Report) -> None:
        if report.loss is None:  # nothing is measured yet: an earlier run's report is worth more
            return
        write_atomically(self.path, json_report.render(report))
        self.last = report

    def summary(self) -> str:
        done = () if self.last is None else [SECTIONS[name] for name in self.last.sections]
        if not done:
            return "interrupted: no section was finished"
        return f"interrupted: {', '.join(done)} finished and saved in {self.path}; the same command goes on from there"


def _previous(path: Path) -> Report | None:
    """The report that an earlier run left, if it can be read."""
    if not path.is_file():  # reading a pipe would wait for ever
        return None
    try:
        return Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def _print(report: Report, request: Request) -> None:
    try:
        if request.common.as_json:
            sys.stdout.write(json_report.render(report))
        else:
            stdout_console().print(terminal.render(report, saved_to=str(request.out)))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # the disk is full, say
        raise HessdiagError(
            f"the report could not be printed: {error.strerror or error}; it is complete in {request.out}"
        ) from None
    if request.common.as_json:
        for warning in report.warnings:
            say(f"warning: {warning}")
