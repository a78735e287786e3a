"""What the tests of the spec share beside their fixtures."""

from __future__ import annotations

from collections.abc import Callable

from hessdiag.spec import Spec

BASE = """\
model: {class_path: model.py:build}
data: {format: npz, path: digits.npz, inputs: x, targets: y}
"""

Load = Callable[..., Spec]
Faults = Callable[..., list[tuple[int | None, int | None, str]]]


def marked(text: str) -> tuple[str, int, int]:
    """Take the mark § out of a text, and say at which line and column it stood."""
    before, mark, after = text.partition("§")
    assert mark
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")
