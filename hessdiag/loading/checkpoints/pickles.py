"""A pickle looked at without running it: what it would call, which storages it names, what its top level holds."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hessdiag.errors import CheckpointError, RefusedError
from hessdiag.loading.checkpoints.machine import Look, Machine, Thing
from hessdiag.loading.checkpoints.words import ALONE, printable

__all__ = ["Look", "look", "reachable", "unsafe_globals"]

_MOST_STEPS = 2_000_000


def look(file: BinaryIO) -> Look:
    """Follow a pickle from where ``file`` stands to its end, making nothing.

    Raises:
        CheckpointError: it breaks off, is garbled, or has more steps or a deeper nesting than weights have.
    """
    machine = Machine()
    try:
        for steps, (operation, argument, _) in enumerate(pickletools.genops(file)):
            machine.step(operation.name, argument)
            if steps > _MOST_STEPS:
                raise RefusedError(
                    f"refused: its pickle has more than {_MOST_STEPS} steps, far more than weights need. {ALONE}"
                )
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a garbled pickle can make its reader stumble over anything
        raise CheckpointError(
            f"damaged torch file: its pickle breaks off or is garbled ({_reason(error)}): copy or save it again"
        ) from error
    return machine.seen


def _reason(error: Exception) -> str:
    return printable(str(error).split("\n")[0]) if isinstance(error, ValueError) else "its stack does not add up"


def unsafe_globals(path: Path) -> list[str]:
    """Every global that the file's pickles call and that ``weights_only`` would refuse; nothing is run.

    Args:
        path: a file that ``torch.save`` or ``pickle`` wrote; any other holds none.

    Raises:
        CheckpointError: the pickle cannot be followed to its end.
    """
    from hessdiag.loading.checkpoints.archives import looks

    return list(dict.fromkeys(printable(name) for seen in looks(path) for name in seen.unsafe()))


def reachable(thing: Any) -> Iterator[Thing]:
    """A thing and all that it holds, each once."""
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Thing) and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting.extend(current.items)
