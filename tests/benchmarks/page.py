"""The page of results: Markdown sections between markers, so that one section can be measured alone and replaced."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")

_SECTION = re.compile(r"<!-- section: (?P<name>[\w-]+) -->\n(?P<text>.*?)\n<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """What has to be shown, beside what was measured; ``because`` says why where it is missed."""

    what: str
    figure: float
    bound: float
    at_least: bool = True
    unit: str = ""
    because: str = ""

    @property
    def met(self) -> bool:
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    def __str__(self) -> str:
        wanted = f"{'at least' if self.at_least else 'at most'} {number(self.bound)}{self.unit}"
        found = f"- {self.what}: **{number(self.figure)}{self.unit}**, target {wanted}: "
        if self.met:
            return found + "met"
        missed = abs(self.figure / self.bound - 1)
        return found + f"missed by {missed:.0%}, because {self.because or 'of something not yet understood'}"


def number(value: float) -> str:
    """Three figures; no exponent where people count."""
    if value != value:
        return "none"
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1e}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is words, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(title: str, *parts: str | Sequence[Target]) -> str:
    """A heading and paragraphs; targets come as a list."""
    texts = [part if isinstance(part, str) else "\n".join(map(str, part)) for part in parts]
    return "\n\n".join([f"## {title}", *[_wrapped(text) for text in texts if text]])


def _wrapped(text: str) -> str:
    """Prose in lines of 120; tables and lists as they are."""
    return text if text.startswith(("|", "- ")) else textwrap.fill(text, 120, break_on_hyphens=False)


def merged(page: str, heading: str, fresh: Mapping[str, str], order: Sequence[str]) -> str:
    """The page with its heading and the sections in ``fresh`` replaced; others stay, all in ``order``."""
    kept = {found["name"]: found["text"] for found in _SECTION.finditer(page)} | dict(fresh)
    places = {name: place for place, name in enumerate(order)}
    names = sorted((name for name in kept if name in places), key=places.__getitem__)
    parts = [f"<!-- section: {name} -->\n{kept[name]}\n<!-- end -->" for name in names]
    return "\n\n".join([heading, *parts]) + "\n"
