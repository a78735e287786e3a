"""The report document that scripts and CI jobs read, as text."""

from __future__ import annotations

import json

from hessdiag.results import Report

__all__ = ["render"]

# What stands at the document's end, after whatever sections a command measured (CONTRACT, section 4).
_LAST = ("cost", "seed", "warnings", "settings", "environment")


def render(report: Report) -> str:
    """The report as one JSON document with a newline at its end.

    Floats are written in the shortest form that reads back to the same number; what does not exist is null.
    """
    document = report.to_dict()
    ordered = {key: document[key] for key in sorted(document, key=_rank)}
    return json.dumps(ordered, indent=2, allow_nan=False) + "\n"


def _rank(key: str) -> int:
    return 1 + _LAST.index(key) if key in _LAST else 0
