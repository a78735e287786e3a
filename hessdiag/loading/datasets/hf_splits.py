"""The splits of a Hugging Face dataset on disk: what ``save_to_disk`` wrote, or files of rows."""

from __future__ import annotations

import glob
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.room import check_proportion, gigabytes
from hessdiag.loading.extras import import_extra

__all__ = ["choose_split", "find_splits"]

Opener = Callable[[Any, Path], Any]
"""Opens a split, given the library and a folder for its cache."""

_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_ABOUT = (_SAVED, _SAVED_SPLITS, "dataset_info.json", "dataset_infos.json")
_KINDS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow"}
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SHARD = re.compile(r"(.+)-\d+-of-\d+")
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_CELL = 8  # bytes of a number as Arrow; texts take more
_LARGEST_STATE = 2**26  # bytes; a hundred thousand files take a tenth of it


def find_splits(path: Path, shown: str) -> dict[str | None, Opener]:
    """What a path holds, by the split's name; None stands for rows that are of no named split.

    Raises:
        DataError: nothing that is read here, or damaged.
    """
    if path.is_dir() and (path / _SAVED_SPLITS).is_file():
        names = _object(path / _SAVED_SPLITS, shown).get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and _is_plain(name) for name in names):
            raise DataError(f"data.path: {shown}/{_SAVED_SPLITS} lists no folders in it: save the dataset again")
        return {name: _saved(path / name, f"{shown}/{name}") for name in names}
    if path.is_dir() and (path / _SAVED).is_file():
        name = _object(path / _SAVED, shown).get("_split")
        return {name if isinstance(name, str) else None: _saved(path, shown)}
    files = [path] if path.is_file() else _files_in(path)
    kinds = ", ".join(_KINDS)
    if not files:
        raise DataError(f"data.path: found no dataset in {shown}, expected what save_to_disk writes, or {kinds} files")
    if path.is_file() and path.suffix.lower() not in _KINDS:
        raise DataError(f"data.path: found {shown}, expected a file whose name ends in {kinds}")
    return _by_split(files, path, shown)


def choose_split(splits: Mapping[str | None, Opener], wanted: str | None, shown: str) -> Opener:
    """The split that the spec names, or the only one.

    Raises:
        UsageError: there is none of that name, or several and none named.
    """
    listed = ", ".join(name for name in splits if name is not None)
    if wanted is None:
        if len(splits) == 1:
            return next(iter(splits.values()))
        raise UsageError(f"missing; expected one of the splits of {shown}: {listed}", "data.split")
    for name in (wanted, _WORDS.get(wanted)):
        if name is not None and name in splits:
            return splits[name]
    has = f"which has: {listed}" if listed else "which has no named splits: leave data.split out"
    raise UsageError(f"found no split {wanted!r} in {shown}, {has}", "data.split")


# -- what save_to_disk wrote ---------------------------------------------------------------------------------


def _saved(folder: Path, shown: str) -> Opener:
    def open_saved(library: Any, scratch: Path) -> Any:
        listed = _object(folder / _SAVED, shown).get("_data_files")
        if listed == []:
            raise DataError(f"data.path: {shown} holds no examples, expected at least one")
        for item in listed if isinstance(listed, list) else [listed]:
            name = item.get("filename") if isinstance(item, dict) else None
            if not isinstance(name, str) or not _is_plain(name) or not (folder / name).is_file():
                raise DataError(
                    f"data.path: {shown}/{_SAVED} names {name!r}, expected files in that folder: copy it again, whole"
                )
        _object(folder / "dataset_info.json", shown)
        return library.Dataset.load_from_disk(str(folder))

    return open_saved


def _object(path: Path, shown: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_STATE:
            raise ValueError(f"more than {_LARGEST_STATE} bytes")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"data.path: {path.name} in {shown} cannot be read ({error}): copy the dataset again, or save it by "
            "save_to_disk"
        ) from error


def _is_plain(name: str) -> bool:
    """A name of something in the folder, not a way out of it."""
    return name not in ("", ".", "..") and not re.search(r"[/\\:\0]", name)


# -- files of rows -------------------------------------------------------------------------------------------


def _files_in(folder: Path) -> list[Path]:
    """Here, or else one folder further down, as in a copy of a hub's repository."""
    for pattern in ("*", "*/*"):
        found = [
            file
            for file in sorted(folder.glob(pattern))
            if file.suffix.lower() in _KINDS and file.name not in _ABOUT and file.is_file()
        ]
        if found:
            return [file for file in found if not file.name.startswith(".")]
    return []


def _by_split(files: list[Path], path: Path, shown: str) -> dict[str | None, Opener]:
    groups: dict[str | None, list[Path]] = {}
    for file in files:
        groups.setdefault(_split_of(file, path), []).append(file)
    if len(groups) > 1:  # what lies beside files with a split's name is something else
        groups.pop(None, None)
    for name, group in groups.items():
        for what, found in (
            ("kinds", {_KINDS[file.suffix.lower()] for file in group}),
            ("folders", {file.parent.name for file in group}),
        ):
            if len(found) > 1:
                raise DataError(
                    f"data.path: found files of several {what} ({', '.join(sorted(found))}) in {shown}"
                    f"{'' if name is None else f' for the split {name}'}, expected one: name one file or folder"
                )
    return {name: _rows(group, shown) for name, group in groups.items()}


def _split_of(file: Path, path: Path) -> str | None:
    """The split that the name of a file tells, or else that of its folder below the dataset's."""
    names = [file.stem] if file.parent == path or file == path else [file.stem, file.parent.name]
    for name in names:
        for word in re.findall(r"[a-z]+", name.lower()):
            if word in _WORDS:
                return _WORDS[word]
    shard = _SHARD.match(file.stem)
    return shard[1] if shard else None


def _rows(files: list[Path], shown: str) -> Opener:
    kind = _KINDS[files[0].suffix.lower()]

    def open_files(library: Any, scratch: Path) -> Any:
        if kind == "arrow":  # mapped as they stand
            return library.concatenate_datasets([library.Dataset.from_file(str(file)) for file in files])
        _refuse_compressed(files)
        _refuse_too_large(files, kind, scratch, shown)
        reader = getattr(library.Dataset, f"from_{kind}")
        return reader([glob.escape(str(file)) for file in files], cache_dir=str(scratch))

    return open_files


def _refuse_compressed(files: list[Path]) -> None:
    for file in files:
        with file.open("rb") as opened:
            if opened.read(8).startswith(_COMPRESSED):
                raise DataError(f"data.path: {file.name} is compressed, expected {file.suffix}: decompress it")


def _refuse_too_large(files: list[Path], kind: str, scratch: Path, shown: str) -> None:
    """They are written out as Arrow, which is mapped into memory."""
    size = sum(map(_size_of_parquet if kind == "parquet" else lambda file: file.stat().st_size, files))
    free = shutil.disk_usage(scratch).free
    if size > free:
        raise DataError(
            f"data.path: {shown} takes {gigabytes(size)} as Arrow in {scratch.parent}, where {gigabytes(free)} are "
            "free: set TMPDIR to a larger place, or save the dataset by save_to_disk, which is read as it stands"
        )


def _size_of_parquet(file: Path) -> int:
    whole = import_extra("pyarrow.parquet", "data.format: hf").read_metadata(file)
    size = int(whole.num_rows) * int(whole.num_columns) * _CELL  # a page of equal values takes a few bytes in the file
    check_proportion(size, file.stat().st_size, f"data.path: {file.name}", "take a file that you trust")
    return max(size, sum(int(whole.row_group(number).total_byte_size) for number in range(whole.num_row_groups)))
