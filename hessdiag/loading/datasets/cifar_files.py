"""The files of CIFAR by name, from a folder or from an archive that is read in memory and never extracted."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.damage import damage_told
from hessdiag.loading.datasets.room import refuse_zeros_at_end

__all__ = ["find_files"]

_MOST_BYTES = 512 * 2**20  # the largest of the archives unpacks to 187 MB
_MOST_MEMBERS = 1000
_GZIP = b"\x1f\x8b"


def find_files(path: Path, names: Collection[str], folders: Collection[str], shown: str) -> dict[str, bytes]:
    """The content of those of the named files that are there.

    Args:
        path: a folder with the files, or with one of ``folders`` that has them; or a .tar.gz or .tar of such.
        names: the files looked for.
        folders: the names under which the makers publish them.
        shown: the path as it stands in the spec.

    Raises:
        DataError: the archive is damaged, or holds far more than CIFAR.
        UsageError: several of the folders have them.
    """
    if path.is_file():
        refuse_zeros_at_end(path, f"data.path: {shown}")
    try:
        with damage_told("is not a readable folder or .tar.gz archive"):
            return _in_folder(path, names, folders) if path.is_dir() else _in_archive(path, names)
    except DataError as error:
        raise DataError(f"data.path: {shown} {error}") from None


def _in_folder(path: Path, names: Collection[str], folders: Collection[str]) -> dict[str, bytes]:
    places = {
        name: [path / name / file for file in names if (path / name / file).is_file()] for name in (".", *folders)
    }
    holding = [name for name, files in places.items() if files]
    if len(holding) > 1:
        raise UsageError(f"found CIFAR in several folders ({', '.join(holding)}), expected one: name it", "data.path")
    files = places[holding[0]] if holding else []
    for file in files:
        _check_size(file.name, file.stat().st_size)
    return {file.name: file.read_bytes() for file in files}


def _in_archive(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """One pass over the archive: to go back in a gzipped file is to unpack it again from its start."""
    found: dict[str, bytes] = {}
    with path.open("rb") as raw:
        zipped = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        content: Any = _Bounded(gzip.GzipFile(fileobj=raw) if zipped else raw)
        with tarfile.open(fileobj=content, mode="r|") as archive:
            for number, member in enumerate(archive):
                if number == _MOST_MEMBERS:
                    raise DataError(f"holds more than {_MOST_MEMBERS} files, which none of CIFAR's archives does")
                name = PurePosixPath(member.name).name
                if name in names and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):  # no links, no sparse files
                    if name in found:
                        raise DataError(f"holds several files {name}, expected one")
                    found[name] = _content(archive, member)
        while content.read(1 << 20):  # at the end of a gzipped file its checksum is compared
            pass
    return found


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    _check_size(member.name, member.size)
    file = archive.extractfile(member)
    assert file is not None  # a regular file
    return file.read()


def _check_size(name: str, size: int) -> None:
    if size > _MOST_BYTES:
        raise DataError(f"holds {name} of {size} bytes, more than all of CIFAR")


class _Bounded:
    """A file that gives no more than CIFAR holds: tarfile reads names and headers of any declared length."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file, self._left = file, _MOST_BYTES

    def read(self, size: int) -> Any:
        """The next bytes.

        Raises:
            DataError: that would be more than all of CIFAR.
        """
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise DataError(f"unpacks to more than {_MOST_BYTES} bytes, which none of CIFAR's archives does")
        return content
