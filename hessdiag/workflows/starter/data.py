"""What stands under ``data:``, from the data themselves; the content tells the format, then the name."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from hessdiag.errors import DataError, UsageError
from hessdiag.spec.references import split_reference
from hessdiag.workflows.starter.arrays import guess_npy_folder, guess_npz, guess_safetensors
from hessdiag.workflows.starter.folders import guess_cifar, guess_folder, guess_idx
from hessdiag.workflows.starter.guess import DataGuess, place
from hessdiag.workflows.starter.records import Model, guess_jsonl
from hessdiag.workflows.starter.tables import guess_csv, guess_parquet
from hessdiag.workflows.starter.text import FILL_IN, Line

__all__ = ["guess_data", "no_data"]

_GZIP = b"\x1f\x8b"
_TEXT = {".csv", ".tsv", ".txt", ".dat"}
_JSON = {".jsonl", ".json", ".ndjson"}
_YAML = {".yaml", ".yml"}


def guess_data(named: str, shown: Callable[[Path], str], model: Model) -> DataGuess:
    """Look at data without reading them whole.

    Args:
        named: a file or folder, or ``file.py:function``.
        shown: how the spec names a path.
        model: what the data must fit.

    Raises:
        UsageError: no such file or folder.
        DataError: damaged, or of no known format.
    """
    reference = split_reference(named)
    if reference is not None and Path(reference[0]).is_file():
        return _python(f"{shown(Path(reference[0]))}:{reference[1]}")
    path = Path(named)
    if path.is_dir():
        return guess_folder(path, shown, model)
    if not path.is_file():
        fault = "found neither a file nor a folder" if path.exists() else "no such file or folder"
        raise UsageError(f"{named}: {fault} (looked in {path.absolute().parent})")
    try:
        return _file(path, shown, model)
    except OSError as error:
        raise DataError(f"{named}: cannot be read: {error.strerror or error}") from None


def no_data() -> DataGuess:
    """What is to be filled in where no data are named."""
    lines = [
        Line("format: npz", "or csv, parquet, jsonl, hf, imagefolder, cifar, idx, safetensors, sklearn, ..."),
        Line(f"path: {FILL_IN}.npz", f"{FILL_IN}: the training data, relative to the folder of this file"),
        Line("inputs: x", "what the model is called with"),
        Line("targets: y", "what the loss compares the outputs with"),
    ]
    return DataGuess(lines)


def _file(path: Path, shown: Callable[[Path], str], model: Model) -> DataGuess:
    with path.open("rb") as file:
        head = file.read(4096)
    name, suffix = path.name.lower(), path.suffix.lower()
    if head.startswith(b"PK") and _holds_arrays(path):
        return guess_npz(path, shown(path))
    if head.startswith(b"\x93NUMPY"):
        return guess_npy_folder(path.parent, shown(path.parent))
    if head.startswith(b"PAR1"):
        return guess_parquet(path, shown(path))
    if head[8:9] == b"{" and head[7:8] == b"\0":
        return guess_safetensors(path, shown(path))
    if _inflated(path, head)[:3] in (b"\0\0\x08", b"\0\0\x0d"):
        return guess_idx(path.parent, shown(path.parent))
    if name.startswith("cifar") and name.endswith((".tar.gz", ".tgz", ".tar")):
        return guess_cifar(shown(path))
    if suffix in _YAML:
        raise DataError(f"{path}: found a YAML file, as a spec is; expected the data themselves, as a spec names them")
    if suffix in _JSON or head.lstrip().startswith(b"{"):
        return guess_jsonl(path, shown(path), model)
    if suffix in _TEXT:
        return guess_csv(path, shown(path))
    raise DataError(
        f"{path}: found a file of no known format (first bytes {head[:8]!r}); expected npz, npy, csv, parquet, jsonl, "
        'safetensors, IDX or CIFAR files, or "file.py:function", which makes the data'
    )


def _python(reference: str) -> DataGuess:
    about, where = place("python", reference)
    lines = [about, Line(where.content, "returns a Dataset, a DataLoader, or an iterable of batches")]
    return DataGuess(
        lines, batch_size=Line("# batch_size: 256", "for a Dataset; a DataLoader or batches have their own")
    )


def _holds_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return path.suffix.lower() == ".npz"  # damaged: let its reader say how


def _inflated(path: Path, head: bytes) -> bytes:
    if not head.startswith(_GZIP):
        return head
    try:
        with gzip.open(path) as file:
            return file.read(4)
    except (OSError, EOFError, zlib.error):
        return b""
