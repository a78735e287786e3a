"""The two containers of ``torch.save``, a zip archive and before torch 1.6 a row of pickles, checked before use."""

from __future__ import annotations

import errno
import mmap
import zipfile
from io import BytesIO
from pathlib import Path

from hessdiag.errors import CheckpointError, RefusedError
from hessdiag.loading.checkpoints.pickles import Look, look
from hessdiag.loading.checkpoints.words import counted, few, printable

__all__ = [
    "PICKLE",
    "ZIP",
    "check_archive",
    "is_archive",
    "looks",
    "may_be_mapped",
    "record_sizes",
    "written_by_torch",
]

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"  # the first byte of every pickle since protocol 2
_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save writes first where it writes no zip archive
_PICKLES = ("data.pkl", "constants.pkl")
_LARGEST_INFLATION = 20
_SLACK = 1 << 20
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def is_archive(path: Path) -> bool:
    """Whether torch would take the file for a zip archive: by its first bytes alone, unlike ``zipfile``."""
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP


def looks(path: Path) -> list[Look]:
    """The pickles in a file, each looked at without running it; none where it holds none.

    Raises:
        CheckpointError: one cannot be followed to its end.
    """
    if is_archive(path):
        try:
            with zipfile.ZipFile(path) as archive:
                records = [record for record in archive.infolist() if record.filename.rpartition("/")[2] in _PICKLES]
                if _inflate(records):
                    return []
                return [look(BytesIO(_unchecked(archive, record))) for record in records]
        except (CheckpointError, MemoryError):
            raise
        except Exception:  # no archive, or a damaged one
            return []
    with path.open("rb") as file:
        if file.read(1) != PICKLE:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _row(content)


def _unchecked(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    """A record whose checksum may be missing, as torch can be told to leave it."""
    del record.CRC
    return archive.read(record)


def _row(content: mmap.mmap) -> list[Look]:
    """A magic number, a version, the system's sizes, the contents, the storages' keys; or any one pickle."""
    seen = [look(content)]  # type: ignore[arg-type]
    if seen[0].result == _MAGIC:
        seen += [look(content) for _ in range(4)]  # type: ignore[arg-type]
    return seen


def written_by_torch(seen: list[Look]) -> bool:
    """Whether a row of pickles begins as those of ``torch.save`` do."""
    return bool(seen) and seen[0].result == _MAGIC


def may_be_mapped(path: Path) -> bool:
    """Whether every record lies in the file as it is in memory: a compressed one, mapped, would be other numbers."""
    with zipfile.ZipFile(path) as archive:
        return all(record.compress_type == zipfile.ZIP_STORED for record in archive.infolist())


def check_archive(path: Path) -> None:
    """Refuse other zip archives and bombs, and find damage that torch does not look for: it leaves checksums unread.

    Raises:
        CheckpointError: as above.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # among them struct.error, RecursionError and what codecs raise
        raise CheckpointError(
            f"damaged torch file of {path.stat().st_size} bytes (its zip directory cannot be read): it was cut short "
            "or overwritten, copy or save it again"
        ) from error
    with archive:
        names = archive.namelist()
        _check_names(names)
        _check_sizes(archive.infolist(), path.stat().st_size)
        damaged = [record.filename for record in archive.infolist() if not _intact(archive, record)]
    if damaged and len(damaged) < len(names):  # torch can be told to write no checksums: then none of them is right
        raise CheckpointError(
            f"damaged torch file: {len(damaged)} of its {len(names)} records differ from their checksums "
            f"(first: {printable(damaged[0])}): copy or save it again"
        )


def _check_names(names: list[str]) -> None:
    pickles = [name for name in names if name.lower().endswith("/data.pkl")]
    if not pickles:
        inner = [name for name in names if name.lower().endswith(_WEIGHTS)]
        advice = f": unpack it, and name {printable(inner[0])}" if inner else ""
        raise CheckpointError(
            f"found a zip archive that torch.save did not write (it holds {few(names, 3) or 'nothing'}), "
            f"expected a state dict saved by torch.save or as safetensors{advice}"
        )
    if len(pickles) > 1 or len({name.lower() for name in names}) < len(names):
        # Two readers of the archive would each find another one.
        raise RefusedError(
            f"refused: a zip archive with several records of one name ({few(pickles, 3)}), as torch.save writes none: "
            "save it again"
        )


def _check_sizes(records: list[zipfile.ZipInfo], size: int) -> None:
    """A bomb says that it holds far more than the file could: by inflating, or by records that lie over each other."""
    stored = sum(record.compress_size for record in records)
    if stored > size:
        raise CheckpointError(
            f"damaged or refused: its {counted(len(records), 'record')} take {stored} bytes in a file of {size}: copy "
            "or save it again"
        )
    if _inflate(records):
        inflated = sum(record.file_size for record in records)
        raise RefusedError(
            f"refused: its {counted(len(records), 'record')} inflate from {stored} to {inflated} bytes, and torch.save "
            "does not compress: save it again"
        )
    if any(record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for record in records):
        raise RefusedError("refused: its records are compressed in a way that torch does not read: save it again")


def _inflate(records: list[zipfile.ZipInfo]) -> bool:
    """Whether they say that they grow beyond what weights can; sums, because many small ones do it too."""
    stored = sum(record.compress_size for record in records)
    return sum(record.file_size for record in records) > _LARGEST_INFLATION * stored + _SLACK


def _intact(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as content:
            while content.read(1 << 20):
                pass
    except MemoryError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # which a place before the file's begin gives
            raise
        return False
    except Exception:  # checksums, and what decompressors and the zip reader raise on garbled bytes
        return False
    return True


def record_sizes(path: Path) -> dict[str, int]:
    """By the key that the pickle calls it, the bytes of every tensor's record; of a zip archive alone."""
    if not is_archive(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        sizes = {record.filename.partition("/")[2]: record.file_size for record in archive.infolist()}
    return {name.removeprefix("data/"): size for name, size in sizes.items() if name.startswith("data/")}
