"""Curves in a terminal and as pictures."""

import math
import struct
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure
from rich.console import Group
from test_report_golden import printed

from hessdiag.errors import UsageError
from hessdiag.reports.curves import is_logarithmic
from hessdiag.reports.plots import refuse_other_formats, save_curves
from hessdiag.reports.terminal.canvas import Canvas
from hessdiag.reports.terminal.curves import curves

STEPS = list(range(101))
FALLING = {
    "slow": (STEPS, [100 / (1 + step) for step in STEPS]),
    "fast": (STEPS, [100 / (1 + step) ** 2 for step in STEPS]),
}
RISING = {"accuracy": (STEPS, [step / 100 for step in STEPS])}


def drawn(named, width=80, encoding="utf-8"):
    return printed(Group(*curves(named, Canvas(width, encoding))), width, encoding).splitlines()


def marks(lines, mark):
    """Row, from the top, and column of each."""
    return [(row, column) for row, line in enumerate(lines[1:]) for column, sign in enumerate(line) if sign == mark]


# -- in a terminal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_plot_fits_its_window(width):
    lines = drawn(FALLING, width)
    assert max(map(len, lines)) == min(width, 100)
    assert lines[0].split() == ["×", "slow", "○", "fast"]
    assert lines[-2].endswith(" steps")


def test_falling_losses_are_on_a_logarithmic_scale():
    lines = drawn(FALLING)
    labels = [line.split()[0] for line in lines if "┤" in line]
    assert labels == ["1e+01", "1e+00", "1e-01", "1e-02"]
    slow, fast = marks(lines, "×"), marks(lines, "○")
    assert slow == sorted(slow, key=lambda place: place[::-1])  # downwards to the right
    ends = [max(places, key=lambda place: place[1]) for places in (slow, fast)]
    # They end at 0.98 and at 0.0096, the foot of the plot, whose 14 rows hold little more than 3 decades.
    assert ends[1][0] == 13
    assert ends[0][0] < 13 - 6


def test_what_rises_from_zero_is_on_a_linear_scale_to_its_top():
    lines = drawn(RISING)
    labels = [line.split()[0] for line in lines if "┤" in line]
    assert labels == ["1", "0.5", "0"]
    places = marks(lines, "×")
    assert min(row for row, _ in places) == 0
    assert max(row for row, _ in places) == 13


def test_a_high_start_does_not_press_the_rest_together():
    values = [1e6 if step < 3 else 2.0 + math.sin(step) for step in STEPS]
    rows = {row for row, _ in marks(drawn({"loss": (STEPS, values)}), "×")}
    assert len(rows) > 7


def test_a_level_curve():
    lines = drawn({"loss": (STEPS, [3.0] * 101)})
    assert len({row for row, _ in marks(lines, "×")}) == 1
    assert any(line.split()[0] == "3" for line in lines if "┤" in line)


def test_values_that_are_not_there_are_left_out():
    values = [math.nan if 20 <= step < 60 else 1.0 + step for step in STEPS]
    columns = [column for _, column in marks(drawn({"trace": (STEPS, values)}), "×")]
    gaps = [after - before for before, after in zip(sorted(columns), sorted(columns)[1:], strict=False)]
    assert max(gaps) > 20


@pytest.mark.parametrize("named", [{}, {"a": ([], [])}, {"a": ([5], [1.0])}, {"a": (STEPS, [math.nan] * 101)}])
def test_nothing_to_draw(named):
    assert "nothing to draw" in drawn(named)[0]


def test_marks_differ_in_ascii():
    lines = drawn(FALLING, encoding="ascii")
    assert lines[0].split() == ["x", "slow", "o", "fast"]
    assert marks(lines, "o")


def test_a_decade_makes_a_scale_logarithmic():
    assert is_logarithmic([1.0, 10.1])
    assert not is_logarithmic([1.0, 9.9])
    assert not is_logarithmic([0.0, 100.0])
    assert not is_logarithmic([])


# -- as a picture --------------------------------------------------------------------------------------------


def test_a_png(tmp_path):
    save_curves(tmp_path / "deep" / "curves.PNG", {"loss": FALLING, "accuracy": RISING}, title="σ = 0.05")
    content = (tmp_path / "deep" / "curves.PNG").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (1560, 585)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["curves.PNG"]


def test_an_svg_is_the_same_each_time(tmp_path):
    for name in ("one.svg", "two.svg"):
        save_curves(tmp_path / name, {"loss": FALLING})
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert ElementTree.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")


def test_axes_of_a_picture(tmp_path, monkeypatch):
    figures = []
    original = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: figures.append(self) or original(self, *args, **kw)
    )
    save_curves(tmp_path / "a.svg", {"loss": FALLING, "accuracy": RISING | FALLING}, title="Both", along="epochs")
    loss, accuracy = figures[0].axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    assert (loss.get_ylabel(), loss.get_xlabel()) == ("loss", "epochs")
    colours = {line.get_label(): line.get_color() for line in accuracy.lines}
    assert [colours[line.get_label()] for line in loss.lines] == [line.get_color() for line in loss.lines]
    assert len(set(colours.values())) == 3


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")

    def interrupted(self, place, **options):
        place.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_curves(path, {"loss": FALLING})
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["curves", "curves.jpg", "png"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"found a name that ends in '.*', expected \.png or \.svg"):
        refuse_other_formats(tmp_path / name)
