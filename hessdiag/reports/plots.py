"""Curves as a picture, PNG or SVG. Needs matplotlib (extra ``plot``), which callers ask for before their work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hessdiag.errors import UsageError
from hessdiag.files import replaced
from hessdiag.reports.curves import Curves, is_logarithmic, points

__all__ = ["refuse_other_formats", "save_curves"]

_FORMATS = (".png", ".svg")
_PANEL = (5.2, 3.9)  # inches
_DPI = 150


def save_curves(path: Path, panels: Mapping[str, Curves], *, title: str = "", along: str = "steps") -> None:
    """Draw curves against steps, one panel beside the other, each on a logarithmic axis where that shows them best.

    The same curves give the same file, byte for byte with the same matplotlib.

    Args:
        path: ends in .png or .svg; written atomically.
        panels: by the name of its vertical axis, each panel's curves by name. A name has one colour in all panels.
        title: above all of them.
        along: what the horizontal axes count.

    Raises:
        UsageError: another ending, or a file that cannot be written.
    """
    refuse_other_formats(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    width, height = _PANEL
    with rc_context({"svg.hashsalt": "hessdiag"}):
        figure = Figure(figsize=(width * len(panels), height), dpi=_DPI, layout="constrained")  # no window, no display
        for axes, (label, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for name, (steps, values) in curves.items():
                axes.plot(steps, values, label=name, color=f"C{names.index(name)}", linewidth=1.4)
            if is_logarithmic([value for _, value in points(curves)]):
                axes.set_yscale("log")
            axes.set_xlabel(along)
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
            axes.legend()
        figure.suptitle(title)
        with replaced(path) as beside:
            figure.savefig(beside, format=path.suffix[1:].lower(), metadata=_undated(path))


def refuse_other_formats(path: Path) -> None:
    """Find out before the work that its picture could not be drawn.

    Raises:
        UsageError: the file's name ends in something else than .png or .svg.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: found a name that ends in {path.suffix!r}, expected {' or '.join(_FORMATS)}")


def _undated(path: Path) -> dict[str, None] | None:
    """What keeps the day out of the file; a PNG has none."""
    return {"Date": None} if path.suffix.lower() == ".svg" else None
