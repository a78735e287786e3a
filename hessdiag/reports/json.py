"""The report document that scripts and CI jobs read, as text."""

from __future__ import annotations

import json

from hessdiag.results import Report

__all__ = ["render"]


def render(report: Report) -> str:
    """The report as one JSON document with a newline at its end.

    Floats are written in the shortest form that reads back to the same number; what does not exist is null.
    """
    return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
