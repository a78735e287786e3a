"""References to Python objects, as a spec writes them: ``file.py:name`` or ``package.module.Name``."""

from __future__ import annotations

__all__ = ["is_dotted_name", "split_reference"]


def split_reference(text: str) -> tuple[str, str] | None:
    """Take ``file.py:name`` apart into file and name; None where ``text`` has another form."""
    # From the right, because a Windows path has a colon of its own.
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".py") and _identifiers(name):
        return file, name
    return None


def is_dotted_name(text: str) -> bool:
    """Whether ``text`` has the form ``package.module.Name``: identifiers, at least two, joined by dots."""
    return "." in text and _identifiers(text)


def _identifiers(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
