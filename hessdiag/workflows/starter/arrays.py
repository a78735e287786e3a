"""Arrays by name: their headers are read, never the numbers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hessdiag.errors import DataError
from hessdiag.loading.datasets.npy import read_header
from hessdiag.memory import out_of_memory
from hessdiag.workflows.starter.guess import DataGuess, Kind, choice, described, pick, place

__all__ = ["guess_npy_folder", "guess_npz", "guess_safetensors"]

_KINDS: dict[str, Kind] = {"i": "integers", "u": "integers", "b": "integers", "f": "floats", "U": "words", "S": "words"}
_MOST_BYTES = 1 << 16  # of a header, which may declare any length of itself
_Found = Iterator[tuple[str, str, Kind]]


def guess_npz(path: Path, shown: str) -> DataGuess:
    """A NumPy archive."""
    return _guess("npz", shown, _in_archive(path))


def guess_npy_folder(folder: Path, shown: str) -> DataGuess:
    """A folder of .npy files."""
    return _guess("npz", shown, _in_folder(folder))


def guess_safetensors(path: Path, shown: str) -> DataGuess:
    """A safetensors file of data."""
    return _guess("safetensors", shown, _in_safetensors(path))


def _guess(form: str, shown: str, found: _Found) -> DataGuess:
    what: dict[str, str] = {}
    kinds: dict[str, Kind] = {}
    for name, words, kind in found:
        what[name], kinds[name] = words, kind
    if not what:
        raise DataError(f"{shown}: it holds no arrays")
    usable = [name for name in what if kinds[name] != "other"]
    inputs, targets = pick(usable)
    if inputs == "input_ids" and targets is None:
        targets = inputs  # a language model's, which the loss shifts by one
    chosen = [choice("inputs", inputs, usable), choice("targets", targets, usable)]
    return DataGuess([*described(what), *place(form, shown), *chosen], kinds[targets] if targets is not None else None)


def _in_archive(path: Path) -> _Found:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as file:
                        yield _of_header(file, entry.file_size, entry.filename.removesuffix(".npy"))
    except Exception as error:  # a damaged archive or header can make a reader stumble over anything
        if out_of_memory(error):
            raise
        raise DataError(f"{path.name}: damaged NumPy archive ({error}): copy or save it again") from None


def _in_folder(folder: Path) -> _Found:
    for path in sorted(folder.glob("*.npy")):
        try:
            with path.open("rb") as file:
                yield _of_header(file, path.stat().st_size, path.stem)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise DataError(f"{path.name}: damaged NumPy file ({error}): copy or save it again") from None


def _of_header(file: Any, size: int, name: str) -> tuple[str, str, Kind]:
    try:
        header = read_header(io.BytesIO(file.read(_MOST_BYTES)), size, name)
    except DataError:  # Python objects, or damaged: not this one, then
        return name, "cannot be read", "other"
    return name, f"{_shape(header.shape)} {header.dtype}", _KINDS.get(np.dtype(header.dtype).kind, "other")


def _in_safetensors(path: Path) -> _Found:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, not a dict
                part = file.get_slice(name)
                dtype = str(part.get_dtype())
                kind: Kind = "floats" if dtype.startswith(("F", "BF")) else "integers"
                yield name, f"{_shape(part.get_shape())} {dtype}", kind
    except Exception as error:
        if out_of_memory(error):
            raise
        raise DataError(f"{path.name}: damaged safetensors file ({error}): copy or save it again") from None


def _shape(shape: Any) -> str:
    return f"({', '.join(map(str, shape))})"
