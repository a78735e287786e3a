import dataclasses
import io
import os
import pathlib
import subprocess
import sys

import pytest
import report_examples as examples
from rich.console import Console

from hessdiag.reports import terminal
from hessdiag.reports.console import stderr_console, stdout_console
from hessdiag.results import Caution, GroupTrace, Report, TracePart

ROOT = pathlib.Path(__file__).parent.parent.parent
LONG = "block." * 24 + "weight"
SCRIPT = """
import sys
sys.path.insert(0, "tests/reports")
import report_examples as examples
from hessdiag.reports import terminal
from hessdiag.reports.console import stdout_console
for report in examples.ALL.values():
    stdout_console().print(terminal.render(report, "out/λ σ.json"))
"""


def shown(report: Report, width: int = 80, saved_to: str | None = None, **options) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, height=25, **options).print(terminal.render(report, saved_to))
    return stream.getvalue()


def with_group(name: str, value: float = 60.0) -> Report:
    groups = (GroupTrace(name, 10, value, 0.1), *examples.TRACE.groups)
    return dataclasses.replace(examples.FULL, trace=dataclasses.replace(examples.TRACE, groups=groups))


def piped(environment: dict[str, str]) -> bytes:
    clean = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    return subprocess.run(command, env=clean | environment, cwd=ROOT, capture_output=True, check=True).stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_no_encoding_breaks_the_report(encoding):
    text = piped({"PYTHONIOENCODING": encoding}).decode(encoding)
    assert "Tr[H] = 48.3 " in text
    assert ("±" in text) == (encoding == "utf-8")
    # A path is never respelt: what cannot be shown is escaped.
    if encoding in ("ascii", "latin-1", "cp1252"):
        assert "Report saved to out/\\u03bb \\u03c3.json" in text


@pytest.mark.parametrize("environment", [{"COLUMNS": "40"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1", "TERM": "dumb"}, {}])
def test_a_pipe_gets_every_name_whole(environment):
    lines = piped({"PYTHONIOENCODING": "utf-8"} | environment).decode().splitlines()
    for group in sorted(examples.MANY_GROUPS.trace.groups, key=lambda g: -abs(g.value))[:12]:
        assert any(group.name in line for line in lines)
    assert max(map(len, lines)) < 300
    assert not any(line != line.rstrip() for line in lines)


def test_a_pipe_has_no_colours_unless_they_are_forced():
    assert b"\x1b" not in piped({"PYTHONIOENCODING": "utf-8"})
    assert b"\x1b" in piped({"PYTHONIOENCODING": "utf-8", "FORCE_COLOR": "1", "TERM": "xterm"})


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_its_own_width_and_colours(monkeypatch):
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "97")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", _Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert stdout_console().width == 97
    assert stdout_console().color_system is not None
    assert stderr_console().width > 10_000
    monkeypatch.setenv("NO_COLOR", "1")
    assert stdout_console().no_color


def test_consoles_take_text_literally(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    stdout_console().print("[red]x[/red] :smile: 12")
    assert sys.stdout.getvalue() == "[red]x[/red] :smile: 12\n"


def test_markup_in_names_is_no_markup():
    report = with_group("[bold red]x[/]")
    report = dataclasses.replace(report, warnings=(Caution("[blink]careful"),))
    text = shown(report, saved_to="[/red].json", color_system="truecolor", force_terminal=True)
    assert "[bold red]x[/]" in text
    assert "[/red].json" in text
    assert "[blink]careful" in text


def test_names_out_of_a_checkpoint_cannot_command_the_terminal():
    text = shown(with_group("a\x1b[2J\x07\nb\u202ec\udcff"), saved_to="\x1b]0;title\x07.json")
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "a\\x1b[2J\\x07\\nb\\u202ec\\udcff" in text


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_long_name_folds_and_loses_nothing(width):
    text = shown(with_group(LONG), width)
    first_column = "".join(
        line.split("  ")[0]
        for line in (line.strip() for line in text.splitlines())
        if "block." in line or "weight" in line
    )
    assert LONG in first_column.replace(" ", "")
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [20, 30, 40, 60])
@pytest.mark.parametrize("name", examples.ALL)
def test_in_a_narrow_window_no_digit_is_lost(name, width):
    def digits(text: str) -> list[str]:
        return sorted(c for c in text.split("Spectral")[0] if c.isdigit())

    assert digits(shown(examples.ALL[name], width)) == digits(shown(examples.ALL[name], 120))


def test_signed_bars_share_one_scale():
    groups = tuple(GroupTrace(n, 1, v, 0.1) for n, v in [("a", 8.0), ("b", -4.0), ("c", 4.0), ("d", 0.0)])
    trace = dataclasses.replace(examples.TRACE, value=8.0, interval=(7.8, 8.2), groups=groups)
    lines = shown(dataclasses.replace(examples.FULL, trace=trace)).splitlines()
    bars = {line.split()[0]: line for line in lines if "│" in line}
    blocks = {name: line.count("█") for name, line in bars.items()}
    assert blocks["b"] > 3
    assert blocks["a"] == pytest.approx(2 * blocks["b"], abs=1)
    assert blocks["b"] == pytest.approx(blocks["c"], abs=1)
    assert blocks["d"] == 0
    assert bars["b"].endswith("█│")
    assert len({line.index("│") for line in bars.values()}) == 1


@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, -2.0), (1e-300, 1e-310), (1.0, -1e9)])
def test_odd_groups_are_drawn(values):
    groups = tuple(GroupTrace(f"g{i}", 1, value, 0.0) for i, value in enumerate(values))
    text = shown(dataclasses.replace(examples.FULL, trace=dataclasses.replace(examples.TRACE, groups=groups)))
    assert "g0" in text
    assert "g1" in text


def test_shares_of_a_trace_that_may_be_zero_are_not_shown():
    trace = dataclasses.replace(examples.TRACE, value=0.1, interval=(-0.7, 0.9))
    assert " %  █" not in shown(dataclasses.replace(examples.FULL, trace=trace))


@pytest.mark.parametrize(
    ("grid", "density"),
    [
        ((), ()),
        ((1.0,), (1.0,)),
        ((0.0, 1.0), (0.0, 0.0)),
        ((0.0, 1.0), (1.0, 1.0)),
        ((-1e-9, 1e-9), (1e8, 1e-300)),
        ((0.0, 1.0, 1e9), (1e-9, 1.0, 1e-9)),
        ((1e6, 1e6 + 1e-6), (1.0, 2.0)),
        ((5.0, 5.0), (1.0, 1.0)),
    ],
)
def test_odd_densities_are_drawn(grid, density):
    result = dataclasses.replace(examples.DENSITY.density, grid=grid, density=density)
    assert "Spectral density" in shown(dataclasses.replace(examples.DENSITY, density=result))


def test_a_narrow_peak_is_never_missed():
    points = 100_001
    density = tuple(1.0 if i == 61_803 else 1e-9 for i in range(points))
    grid = tuple(i / (points - 1) for i in range(points))
    result = dataclasses.replace(examples.DENSITY.density, grid=grid, density=density)
    assert "█" in shown(dataclasses.replace(examples.DENSITY, density=result))


def test_only_what_was_measured_is_shown():
    text = shown(examples.PARTIAL)
    assert "Eigenvalues" in text
    assert "partial: finished sections only" in text
    assert not any(title in text for title in ("Trace", "Noise gap", "Spectral", "Crosscheck"))
    assert "failed" in shown(dataclasses.replace(examples.PARTIAL, status="failed"))


def test_what_did_not_converge_says_so_and_what_to_do():
    text = " ".join(shown(examples.NOT_CONVERGED).split())
    assert "raise eigenvalues.max_matvecs or eigenvalues.rtol" in text
    assert "the time was up (max_time), raise it or trace.rtol" in text
    assert text.count("not converged") == 2  # each in its section, and not again below
    assert "converged" not in shown(examples.FULL).replace(", converged", "")


def test_bounds_and_parts_are_told_beside_what_they_are_of():
    text = shown(examples.SPLIT)
    assert "no eigenvalue lies outside [-0.214, 12.314] (99 % sure)" in text  # rounded outwards
    assert "lanczos, 30 products, 2 restarts, converged" in text
    assert "Gauss-Newton part  47.91 ± 0.31  9 gradients\n" in text
    assert "residual part       0.40 ± 0.27  8 products\n" in text
    assert "gauss-newton, converged" in text
    zero = dataclasses.replace(examples.SPLIT.trace, probes=0, matvecs=0, residual=TracePart(0.0, 0.0, 0))
    text = shown(dataclasses.replace(examples.SPLIT, trace=zero))
    assert "its diagonal is zero\n" in text
    assert not any(word in shown(examples.FULL) for word in ("outside", "restart", "Gauss-Newton"))


def test_reports_need_no_torch():
    code = "import sys; from hessdiag.reports import console, json, terminal; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
