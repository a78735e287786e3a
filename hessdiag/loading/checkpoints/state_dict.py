"""What ``torch.save`` wrote, read with ``weights_only``: a pickle that would run code is refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hessdiag.errors import CheckpointError, HessdiagError, RefusedError
from hessdiag.loading.checkpoints.allowed import dangerous, do_not_trust, fillable, import_globals, stand_ins
from hessdiag.loading.checkpoints.archives import (
    PICKLE,
    ZIP,
    check_archive,
    is_archive,
    looks,
    may_be_mapped,
    record_sizes,
    written_by_torch,
)
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.pickles import Look
from hessdiag.loading.checkpoints.trusted import TENSORS, importable, lost_with_script, read_pickle
from hessdiag.loading.checkpoints.words import ALONE, few, printable
from hessdiag.loading.checkpoints.wrapped import LIGHTNING_WEIGHTS, is_lightning, unwrap
from hessdiag.memory import available_memory, out_of_memory

__all__ = ["FORMAT", "load_pickle"]

_MOST_NAMED = 20
_MOST_ALLOWED = 5


def _recognises(glimpse: Glimpse) -> bool:
    """A zip archive, or a bare pickle."""
    return glimpse.head.startswith((ZIP, PICKLE))


def _read(path: Path, reading: Reading) -> Contents:
    """The weights, memory-mapped where the file allows.

    Raises:
        CheckpointError: damaged, refused, or without the weights that are asked for.
        UsageError: a global is allowed that cannot be imported.
    """
    return unwrap(load_pickle(path, reading), reading.weights)


def load_pickle(path: Path, reading: Reading) -> Any:
    """What a file of ``torch.save`` holds; only with ``reading.trust`` is anything in it run.

    Raises:
        CheckpointError: damaged or refused.
        UsageError: a global is allowed that cannot be imported.
    """
    allowed = import_globals(reading.allowed_globals)
    if is_archive(path):
        check_archive(path)
    try:
        return _load_safely(path, allowed)
    except _WouldRunError:
        if not reading.trust:
            raise
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or 2 * path.stat().st_size > available_memory(torch.device("cpu")):
            raise
        raise CheckpointError(
            f"damaged or refused: its pickle asks for more memory than is free, in a file of {path.stat().st_size} "
            "bytes: copy or save it again"
        ) from error
    return _load_trusted(path)


class _WouldRunError(RefusedError):
    """A pickle that would run code."""


def _load_safely(path: Path, allowed: list[tuple[Any, str]]) -> Any:
    seen = looks(path)
    _check_pickles(path, seen)
    names = {name for _, name in allowed}
    refused = [name for look in seen for name in look.unsafe() if name not in names]
    if refused and is_lightning(_top_level(seen)):
        allowed = allowed + stand_ins(_contents(seen), refused, keep_from=LIGHTNING_WEIGHTS)
        names = {name for _, name in allowed}
        refused = [name for name in refused if name not in names]
    refused = list(dict.fromkeys(refused))
    if refused and not (_readable(path, seen) or any(map(dangerous, refused))):
        # No way on is told: it holds no tensors.
        raise _WouldRunError(f"refused: {_of_another_program()}. Its pickle calls {few(refused, _MOST_NAMED)}")
    if refused:
        raise _WouldRunError(_refusal(refused, _contents(seen)))
    unread = sorted({name for look in seen for name in look.unread})
    if unread:
        raise _WouldRunError(
            f"refused: its pickle (protocol {max(look.protocol for look in seen)}) has what weights_only does not read "
            f"({few(unread)}), expected protocol 2, as torch.save writes it. {ALONE}; or, if you trust whoever made "
            "it, --trust-checkpoint"
        )
    _check_storages(path, seen)
    with _only(fillable(allowed, _contents(seen))):
        return _load_weights(path)


@contextmanager
def _only(allowed: list[tuple[Any, str]]) -> Iterator[None]:
    """Let the pickle call what is allowed, and nothing else that some library has let all pickles call."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*allowed])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _contents(seen: list[Look]) -> Look:
    """Of the pickles in a file, that with the weights: before torch 1.6, three small ones came before it."""
    return seen[3] if written_by_torch(seen) else seen[0]


def _top_level(seen: list[Look]) -> Any:
    return getattr(_contents(seen).result, "keys", None) or {}


def _check_pickles(path: Path, seen: list[Look]) -> None:
    if not seen:
        raise CheckpointError(_damaged(path, "its pickle cannot be found"))
    if not is_archive(path) and not written_by_torch(seen) and not seen[0].unsafe():
        raise CheckpointError(_of_another_program())


def _of_another_program() -> str:
    return f"found a pickle that torch.save did not write, expected a state dict saved by torch.save. {ALONE}"


def _check_storages(path: Path, seen: list[Look]) -> None:
    """A storage that says more than its record holds would be read out of its neighbours, or ask for all memory."""
    told = _contents(seen).storages
    if not is_archive(path):
        total, size = sum(told.values()), path.stat().st_size
        if total > size or any(count < 0 for count in told.values()):
            raise CheckpointError(_damaged(path, f"its tensors would take {total} bytes"))
        return
    held = record_sizes(path)
    wrong = [key for key, count in told.items() if not 0 <= count <= held.get(key, 0)]
    if wrong:
        has = f"has {held[wrong[0]]}" if wrong[0] in held else "is not there"
        raise CheckpointError(
            _damaged(path, f"tensor record {printable(wrong[0])} should have {told[wrong[0]]} bytes and {has}")
        )


def _readable(path: Path, seen: list[Look]) -> bool:
    """Whether it may hold tensors: torch.save wrote it, or pickle did, and it calls what makes them."""
    return is_archive(path) or written_by_torch(seen) or TENSORS in seen[0].globals


def _load_trusted(path: Path) -> Any:
    """What a pickle holds that runs code.

    Raises:
        CheckpointError: it holds no tensors, or the code is not there.
    """
    seen = looks(path)
    if not _readable(path, seen):
        raise CheckpointError(_of_another_program())
    if lost := lost_with_script(_contents(seen).globals):
        raise CheckpointError(f"could not be unpickled: {lost}")
    by_torch = is_archive(path) or written_by_torch(seen)
    try:
        with importable(path.parent, Path.cwd()):
            return _load(path, weights_only=False) if by_torch else read_pickle(path)
    except HessdiagError:
        raise
    except Exception as error:  # whatever the code that it names raises
        if out_of_memory(error):
            raise
        raise CheckpointError(
            f"could not be unpickled ({type(error).__name__}: {_first_sentence(error)}): the code that it was "
            "saved with must be importable under the same names: put its folder on PYTHONPATH, or save the weights "
            "alone"
        ) from error


def _load_weights(path: Path) -> Any:
    try:
        return _load(path, weights_only=True)
    except HessdiagError:
        raise
    except Exception as error:  # a damaged file can make a reader stumble over anything
        if out_of_memory(error):
            raise
        raise CheckpointError(_damaged(path, _first_sentence(error))) from error


def _load(path: Path, weights_only: bool) -> Any:
    mapped = is_archive(path) and may_be_mapped(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on a pickle protocol that it did not write, say
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mapped or None)


def _damaged(path: Path, what: str) -> str:
    return (
        f"damaged torch file of {path.stat().st_size} bytes ({what}): it was cut short or overwritten, "
        "copy or save it again"
    )


def _first_sentence(error: Exception) -> str:
    own = str(error).rpartition("WeightsUnpickler error: ")[2].strip()  # torch puts advice for developers around it
    return printable(re.split(r"\. |\n", own)[0] or type(error).__name__)


def _refusal(names: list[str], seen: Look) -> str:
    """Name all that weights_only would not load, and the ways on that are fit for it."""
    told = few(names, _MOST_NAMED)
    if any(dangerous(name) for name in names):
        return f"refused: its pickle calls {told}, and nothing in a checkpoint is run. {do_not_trust()}"
    if lost := lost_with_script(names):
        return f"refused: its pickle calls {told}, and nothing in a checkpoint is run. Besides, {lost}"
    result = seen.result
    if getattr(result, "kind", None) == "object" and result.name in names:
        return (
            f"refused: a whole pickled {printable(result.name)}, and nothing in a checkpoint is run (its pickle calls "
            f"{told}). {ALONE}; or, if you trust whoever made it, --trust-checkpoint"
        )
    own = any(name == TENSORS or name.partition(".")[0] == "__main__" for name in names)
    if len(names) <= _MOST_ALLOWED and not own:
        way = (
            f"allow {'it' if len(names) == 1 else 'them'}, {' '.join(f'--allow-global {printable(n)}' for n in names)}"
        )
    else:
        way = "--trust-checkpoint"
    return (
        f"refused: its pickle calls {told}, and nothing in a checkpoint is run. {ALONE}; "
        f"or, if you trust whoever made it, {way}"
    )


FORMAT = Format("state_dict", _recognises, _read)
