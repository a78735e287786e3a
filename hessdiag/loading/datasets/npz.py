"""NumPy arrays, read without unpickling: an archive of them, or a folder of .npy files that are mapped."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hessdiag.errors import DataError
from hessdiag.loading.datasets.arrays import ArrayExamples, named_examples
from hessdiag.loading.datasets.damage import COPY_AGAIN, damage_told
from hessdiag.loading.datasets.npy import MAGIC, map_array, read_header
from hessdiag.loading.datasets.room import check_inflated
from hessdiag.spec.data import NpzData

__all__ = ["read"]

_SUFFIX = ".npy"


def read(spec: NpzData, resolve: Callable[[str], Path]) -> ArrayExamples:
    """The arrays that the spec names, as examples.

    Raises:
        DataError: damaged, larger than the memory, of Python objects, or of another length.
        UsageError: an array that the spec names is not there.
    """
    path = resolve(spec.path)
    if path.is_dir():
        with damage_told(
            f"data.path: {spec.path} is not a readable folder of .npy files", f"{COPY_AGAIN}, or save it by np.save"
        ):
            return _of_folder(spec, path)
    with damage_told(f"data.path: {spec.path} is not a readable .npz archive", f"{COPY_AGAIN}, or save it by np.savez"):
        return _of_archive(spec, path)


def _of_folder(spec: NpzData, folder: Path) -> ArrayExamples:
    """Arrays by their files' names without the suffix."""
    files = {path.relative_to(folder).as_posix().removesuffix(_SUFFIX): path for path in folder.rglob(f"*{_SUFFIX}")}

    def mapped(name: str) -> np.ndarray:
        return map_array(files[name], f"array {name!r} in {spec.path}")

    return named_examples(spec, sorted(files), mapped)


def _of_archive(spec: NpzData, path: Path) -> ArrayExamples:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            raise DataError(
                f"data.path: {spec.path} holds one bare array (.npy), expected an .npz archive or a folder: name the "
                f"folder that holds it ({Path(spec.path).parent.as_posix()}), whose .npy files are the arrays, or save "
                "inputs and targets together, np.savez(path, x=..., y=...)"
            )
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(_SUFFIX)]
            names = [member.filename.removesuffix(_SUFFIX) for member in members]
            found = dict(zip(names, members, strict=True))
            twice = {name for name, count in Counter(names).items() if count > 1}

            def unpacked(name: str) -> np.ndarray:
                if name in twice:
                    raise DataError(f"data: found several arrays {name!r} in {spec.path}, expected one: save it again")
                return _unpack(archive, found[name], f"array {name!r} in {spec.path}", spec.path)

            return named_examples(spec, list(found), unpacked)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str, shown: str) -> np.ndarray:
    """One array, its header checked before room is made for it."""
    check_inflated(
        member.file_size,
        member.compress_size,
        f"data: {what}",
        f"unpack the archive (python -m zipfile -e {shown} FOLDER) and name the folder, whose files are read piecewise",
    )
    with archive.open(member) as file:
        read_header(file, member.file_size, what)
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at the end of the member its checksum is compared
    return array
