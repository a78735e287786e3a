"""Files as one must meet them: written so that no reader sees half of one, read whatever they may turn out to be."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hessdiag.errors import UsageError

__all__ = ["neither_file_nor_folder", "read_json", "refuse_unwritable", "replaced", "write_atomically"]

_MOST_BYTES = 2**24  # of a JSON file that says what lies beside it


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, for what can be learnt from it; None where there is none, whatever the reason."""
    try:
        if not path.is_file():  # a pipe is never read: its reader may wait for ever
            return None
        with path.open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_atomically(path: Path, text: str) -> None:
    """Write beside the file, then rename over it: it holds the old text or the new, whatever happens.

    A link stays, and the file that it leads to is written; a device or a pipe, which nothing can be renamed over,
    is written as it stands.

    Raises:
        UsageError: the folder cannot be made or written, or ``path`` is a folder.
    """
    if _is_device(path):
        with _failures_named(path):
            path.write_text(text, encoding="utf-8")
        return
    with replaced(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a file beside ``path`` for the body to write, which then takes its place; after an exception it does not.

    Raises:
        UsageError: as :func:`write_atomically`.
    """
    with _failures_named(path):
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=path.suffix)
        os.close(handle)
        try:
            yield Path(name)
            _to_disk(name)
            os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are private
            os.replace(name, path)
        except BaseException:
            with suppress(FileNotFoundError):  # a Ctrl-C right after the rename
                os.unlink(name)
            raise


def _to_disk(name: str) -> None:
    """A rename may reach the disk before the content that it is to show."""
    handle = os.open(name, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_unwritable(path: Path) -> None:
    """Find out before the work, not after it, that its result could not be written.

    Raises:
        UsageError: as :func:`write_atomically`.
    """
    with _failures_named(path):
        if path.is_dir():
            raise UsageError(f"{path}: found a folder, expected a file to write: name one in it")
        if _is_device(path):
            return
        folder = Path(os.path.realpath(path)).parent
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path}: could not be written: {error.strerror or error}: name a file in a folder that can be"
        ) from error


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def neither_file_nor_folder(folder: Path) -> Path | None:
    """A pipe, a device or the like in a folder or below it: whoever reads it may wait for ever."""
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if _is_device(path):
                return path
    return None
