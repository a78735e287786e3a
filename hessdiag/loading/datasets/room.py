"""Whether what a file declares fits into memory, asked before it is read."""

from __future__ import annotations

from pathlib import Path

import torch

from hessdiag.errors import DataError
from hessdiag.memory import available_memory

__all__ = ["check_inflated", "check_proportion", "check_room", "gigabytes", "refuse_zeros_at_end"]

_SHARE = 0.8  # of what is free; the model and its batches need the rest
_BOMB_BYTES = 1 << 30
_BOMB_RATIO = 200  # compressed data that are worth measuring shrink to a fiftieth at most
_MOST_ZEROS = 1 << 20


def check_room(nbytes: int, what: str, advice: str) -> None:
    """Refuse what does not fit into the free memory.

    Raises:
        DataError: it does not; the message ends in ``advice``.
    """
    free = available_memory(torch.device("cpu"))
    if nbytes > _SHARE * free:
        raise DataError(f"{what} takes {gigabytes(nbytes)} in memory, of which {gigabytes(free)} are free: {advice}")


def check_inflated(nbytes: int, compressed: int, what: str, advice: str) -> None:
    """Refuse a compressed file that grows beyond the free memory, or out of all proportion.

    Raises:
        DataError: it does; the message ends in ``advice``.
    """
    check_proportion(nbytes, compressed, what, advice)
    check_room(nbytes, what, advice)


def check_proportion(nbytes: int, compressed: int, what: str, advice: str) -> None:
    """Refuse a compressed file that grows out of all proportion.

    Raises:
        DataError: it does; the message ends in ``advice``.
    """
    if nbytes > _BOMB_BYTES and nbytes > _BOMB_RATIO * compressed:
        raise DataError(f"{what} grows from {compressed} bytes to {gigabytes(nbytes)}, which no real data do: {advice}")


def refuse_zeros_at_end(path: Path, shown: str) -> None:
    """Refuse a gzipped file that zeros follow: Python's gzip passes over them one by one.

    Raises:
        DataError: there are more than are ever written to fill up a block.
    """
    size = path.stat().st_size
    if size <= _MOST_ZEROS:
        return
    with path.open("rb") as file:
        file.seek(size - _MOST_ZEROS)
        if not any(file.read()):
            raise DataError(f"{shown} ends in {_MOST_ZEROS} zero bytes or more: it is damaged, copy it again")


def gigabytes(nbytes: int) -> str:
    """A size as people say it; one that only a damaged file declares may be beyond floating point."""
    return f"{min(nbytes, 10**30) / 1e9:.3g} GB"
