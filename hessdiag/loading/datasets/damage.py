"""What is said where a library finds a file damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hessdiag.errors import DataError, HessdiagError
from hessdiag.memory import out_of_memory

__all__ = ["COPY_AGAIN", "damage_told"]

COPY_AGAIN = "it was cut short, overwritten, or is of another format: copy it again"
_LONGEST = 300


@contextmanager
def damage_told(what: str, advice: str = COPY_AGAIN) -> Iterator[None]:
    """Read a file that may hold anything; libraries raise on damage whatever comes to them.

    Args:
        what: how the message begins, with the file's name.
        advice: how it ends.

    Raises:
        DataError: the body raised; its own errors, and those of memory, pass as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, HessdiagError) or out_of_memory(error):
            raise
        words = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        reason = "".join(letter if letter.isprintable() else "?" for letter in words)
        raise DataError(f"{what} ({reason}): {advice}") from None
