"""The files that hold a folder's weights: one, or shards under an index; safetensors before torch's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from torch import Tensor

from hessdiag.errors import CheckpointError, RefusedError
from hessdiag.loading.checkpoints import safetensors, state_dict
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.json_object import read_object
from hessdiag.loading.checkpoints.words import few, printable

__all__ = ["FORMAT", "INDEX", "NAMES", "find_weights", "other_files", "read_file", "read_weights", "weight_files"]

INDEX = ".index.json"
NAMES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
"""As Hugging Face's libraries name them, in the order in which they are preferred."""

_ELSEWHERE = {
    ".gguf": "GGUF, whose weights are packed for inference: take the folder that it was converted from",
    ".onnx": "ONNX, a graph for inference: take the folder that it was exported from",
    ".h5": "weights for TensorFlow: load them with transformers 4 (from_tf=True) and save_pretrained them",
    ".msgpack": "weights for Flax: load them with transformers 4 (from_flax=True) and save_pretrained them",
}


def find_weights(folder: Path, names: Iterable[str] = NAMES) -> Path:
    """The file that holds the folder's weights, or their index.

    Raises:
        CheckpointError: there is none; says what is there instead.
    """
    names = tuple(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    held = sorted(entry.name for entry in folder.iterdir())
    expected = f"expected {names[0]}"
    for name in names:
        if name in held:
            raise CheckpointError(f"{name} is no file but a folder, or a link to nothing: copy the file itself")
    for name in held:
        if _is_shard(name):
            raise CheckpointError(
                f"it holds shards (first: {printable(name)}) but no index that says which tensor is where, "
                f"{expected}{INDEX}: copy it too"
            )
    for name in held:
        if Path(name).suffix in _ELSEWHERE:
            raise CheckpointError(f"it holds {printable(name)}, {expected}: {_ELSEWHERE[Path(name).suffix]}")
    raise CheckpointError(
        f"it holds no weights (but {few(held, 5) or 'nothing'}), {expected}: copy them too, or name their file"
    )


def weight_files(path: Path) -> list[Path]:
    """The file itself, or the shards that an index names."""
    return sorted(set(_shards(path).values())) if _is_index(path) else [path]


def read_weights(path: Path, reading: Reading) -> dict[str, Tensor]:
    """The tensors by name, of one file or of the shards of an index, memory-mapped where the files allow.

    Raises:
        CheckpointError: damaged, refused, or incomplete.
    """
    if not _is_index(path):
        return dict(read_file(path, reading).tensors)
    shards = _shards(path)
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(shards.values())):
        found = read_file(file, reading).tensors
        wanted = [name for name, shard in shards.items() if shard == file]
        lacking = [name for name in wanted if name not in found]
        if lacking:
            raise CheckpointError(
                f"{path.name} says that {file.name} holds {len(wanted)} tensors, of which it lacks {len(lacking)} "
                f"(first: {printable(lacking[0])}): the index and the shards are of different saves, copy all again"
            )
        tensors |= {name: found[name] for name in wanted}
    return tensors


def other_files(folder: Path, used: Iterable[Path]) -> dict[str, str]:
    """What else lies in the folder, each with its size: no byte of it is read."""
    taken = set(used)
    others = sorted(entry for entry in folder.iterdir() if entry not in taken)
    return {entry.name: "folder, not read" if entry.is_dir() else f"{_size(entry)} bytes, not read" for entry in others}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link to nowhere
        return 0


def read_file(path: Path, reading: Reading) -> Contents:
    """One file of a folder, whose name begins every complaint.

    Raises:
        CheckpointError: damaged or refused.
    """
    glimpse = _glimpse(path)
    form = safetensors.FORMAT if safetensors.FORMAT.recognises(glimpse) else state_dict.FORMAT
    try:
        if not glimpse.head:
            raise CheckpointError("the file is empty (0 bytes), expected weights: copy or save it again")
        return form.read(path, reading)
    except CheckpointError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _glimpse(path: Path) -> Glimpse:
    with path.open("rb") as file:
        return Glimpse(path, file.read(64))


def _is_index(path: Path) -> bool:
    glimpse = _glimpse(path)
    if path.name.endswith(INDEX) and glimpse.head:
        return True
    return _is_object(glimpse) and not safetensors.FORMAT.recognises(glimpse)


def _is_object(glimpse: Glimpse) -> bool:
    return glimpse.head.lstrip().startswith(b"{")


def _shards(index: Path) -> dict[str, Path]:
    """By tensor the shard that holds it; every shard lies beside the index."""
    table = read_object(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointError(
            f"{index.name} is damaged: expected weight_map, an object from tensors' names to files: copy it again"
        )
    files = {name: _beside(index, name) for name in sorted(set(table.values()))}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{index.name} names {len(files)} files, of which {len(missing)} {'is' if len(missing) == 1 else 'are'} "
            f"missing (first: {printable(missing[0])}): copy the whole folder"
        )
    return {tensor: files[name] for tensor, name in table.items()}


def _beside(index: Path, name: str) -> Path:
    """Where a shard lies, if that is within the index's folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    outside = not name or "\0" in name or ".." in parts.parts or parts.is_absolute() or PureWindowsPath(name).drive
    path = index.parent / name if not outside else index
    if outside or not _within(path, index.parent):
        raise RefusedError(
            f"refused: {index.name} names the file {printable(name)!r}, which is outside its folder: a checkpoint's "
            "files lie together, copy the shards beside the index"
        )
    return path


def _within(path: Path, folder: Path) -> bool:
    """Whether links lead nowhere else; the hub's cache links each file of a snapshot into its blobs."""
    real, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs"
    return real.is_relative_to(home) or (home.parent.name == "snapshots" and real.is_relative_to(blobs))


def _recognises(glimpse: Glimpse) -> bool:
    """A folder with weights and without an architecture, or an index."""
    if glimpse.is_folder:
        return not glimpse.names.isdisjoint(NAMES) or any(map(_is_shard, glimpse.names))
    return _is_object(glimpse) and (b'"weight_map"' in glimpse.head or glimpse.path.name.endswith(INDEX))


def _is_shard(name: str) -> bool:
    return "-of-" in name and name.endswith((".safetensors", ".bin"))


def _weights(path: Path) -> Path:
    return find_weights(path) if path.is_dir() else path


def _read(path: Path, reading: Reading) -> Contents:
    weights = _weights(path)
    files = weight_files(weights)
    kind = "safetensors" if files[0].suffix == ".safetensors" else "state_dict"
    besides = other_files(path, [weights, *files]) if path.is_dir() else {}
    return Contents(read_weights(weights, reading), besides, format=kind)


FORMAT = Format("weights", _recognises, _read, files=lambda path: weight_files(_weights(path)))
