"""The files of a spec: reading the spec itself, and whether those that it names exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hessdiag.errors import Diagnostic, UsageError
from hessdiag.spec.references import split_reference
from hessdiag.spec.tree import Node, dotted

__all__ = ["has_from_data", "missing_files", "read_spec"]

_CHECKPOINTS = {".bin", ".ckpt", ".pt", ".pth", ".safetensors"}
_EITHER = ("file", "folder")
_ALLOWED = {
    "npz": _EITHER,
    "idx": ("folder",),
    "cifar": _EITHER,
    "imagefolder": ("folder",),
    "parquet": _EITHER,
    "hf": _EITHER,
    "tudataset": ("folder",),
}
"""By format of the data, what its path may lead to; a file where nothing is said."""
_VALIDATION = ("train", "validation")
_DATA = (("data",), _VALIDATION)
_MOST_BYTES = 2**18  # what PyYAML reads in a few seconds, and ten thousand class names


def read_spec(path: Path) -> str:
    """Read the text of a spec; a byte order mark at its start is dropped.

    Raises:
        UsageError: no such file, not a file, not readable, or not text.
    """
    if path.suffix.lower() in _CHECKPOINTS and not path.is_dir():
        missing = "" if path.exists() else "no such file, and "
        raise UsageError(
            f"{path}: {missing}by its name a checkpoint; expected a spec (YAML), which names it under "
            "model.checkpoint, or the checkpoint with --data DATA.yaml and --model FACTORY"
        )
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file (looked in {path.absolute().parent})") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: found a folder, expected a spec (a YAML file)") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return _decode(raw, path)


def _decode(raw: bytes, path: Path) -> str:
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{path}: found more than {_MOST_BYTES} bytes, expected a spec (a short YAML file)")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: found byte 0x{raw[error.start]:02x} at offset {error.start}, which is not UTF-8; "
            "expected a spec (a YAML file, UTF-8 text)"
        ) from None
    if "\0" in text:
        raise UsageError(f"{path}: found a binary file, expected a spec (a YAML file, UTF-8 text)")
    return text


def missing_files(root: Node, folder: Path) -> list[Diagnostic]:
    """Complain about every file that the spec names and that is not there, whatever else is wrong with it."""
    faults = []
    for path, node, name in _named_files(root):
        if complaint := _complaint(name, folder, _allowed(root, path)):
            faults.append(node.place.fault(f"{dotted(path)}: {complaint}"))
    return faults


def _named_files(root: Node) -> Iterator[tuple[tuple[str, ...], Node, str]]:
    paths = [("model", "checkpoint"), ("model", "base")]
    sources = [("model", "class_path"), ("loss",), ("loss", "name")]
    for data in _DATA:
        paths.append((*data, "tokenizer"))
        (sources if _format(root, data) == "python" else paths).append((*data, "path"))
    for path in paths:
        node = root.find(*path)
        if node is not None and isinstance(node.value, str) and node.value and not has_from_data(root, path):
            yield path, node, node.value
    for source in sources:
        node = root.find(*source)
        if node is not None and (file := _source_file(node.value)) and not has_from_data(root, source):
            yield source, node, file


def has_from_data(root: Node, path: tuple[str | int, ...]) -> bool:
    """Whether a path leads to what the validation data have from ``data:``, be it nothing."""
    depth = len(_VALIDATION)
    laid_over = path[:depth] == _VALIDATION and _format(root, _VALIDATION) == _format(root, ("data",))
    return laid_over and root.find(*path) is root.find("data", *path[depth:])


def _format(root: Node, data: tuple[str, ...]) -> str | None:
    node = root.find(*data, "format")
    return node.value if node is not None and isinstance(node.value, str) else None


def _source_file(value: Any) -> str | None:
    reference = split_reference(value) if isinstance(value, str) else None
    return reference[0] if reference else None


def _allowed(root: Node, path: tuple[str, ...]) -> tuple[str, ...]:
    """What a name may lead to: "file", "folder"."""
    if path[-1] in ("base", "tokenizer"):
        return ("folder",)
    if path[-1] == "checkpoint":
        return ("file", "folder")
    return _ALLOWED.get(_format(root, path[:-1]) or "", ("file",)) if path[-1] == "path" else ("file",)


def _complaint(name: str, folder: Path, allowed: tuple[str, ...]) -> str | None:
    try:
        path = folder / Path(name).expanduser()
        if (path.is_file() and "file" in allowed) or (path.is_dir() and "folder" in allowed):
            return None
        if path.is_dir():
            return f"found the folder {name!r}, expected a file"
        if path.is_file():
            return f"found the file {name!r}, expected a folder"
        if path.exists():
            return f"found {name!r}, which is neither a file nor a folder, expected a {' or a '.join(allowed)}"
        looked = "" if Path(name).is_absolute() else f" (looked in {path.parent if name[0] == '~' else folder})"
        return f"no such {allowed[0]}: {name!r}{looked}"
    except RuntimeError as error:  # "~somebody"
        return f"no such file: {name!r} ({error})"
    except (OSError, ValueError) as error:
        return f"{name!r} cannot be read: {getattr(error, 'strerror', error)}"
