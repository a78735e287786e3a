"""Files of other programs: recognised from their content, refused with what to take instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hessdiag.errors import RefusedError
from hessdiag.loading.checkpoints.contents import Format, Glimpse, Reading
from hessdiag.loading.checkpoints.protobuf import fields

__all__ = ["FILES", "FOLDERS", "LAST"]

_TORCH_LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the number with which torch begins its pickles
_LEVELDB_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_SAVE_AS = "save the weights by safetensors, or by torch.save(model.state_dict(), ...)"
_INFERENCE = "a graph for inference, whose loss has no second derivatives as stored"
_SAVED_MODEL = (
    f"a TensorFlow SavedModel, {_INFERENCE}. Load it with TensorFlow, copy its weights into the same model in PyTorch, "
    f"and {_SAVE_AS}"
)


def _starts(*magic: bytes, at: int = 0) -> Callable[[Glimpse], bool]:
    return lambda glimpse: glimpse.head[at:].startswith(magic)


def _holds(*names: str) -> Callable[[Glimpse], bool]:
    return lambda glimpse: glimpse.is_folder and not glimpse.names.isdisjoint(names)


def _executorch(glimpse: Glimpse) -> bool:
    """The identifier of its flatbuffer, ET and a version of two digits."""
    return re.match(rb"ET\d\d", glimpse.head[4:8]) is not None


def _pickled_estimator(glimpse: Glimpse) -> bool:
    """A pickle of scikit-learn or joblib; it is looked at, never unpickled."""
    head = glimpse.head
    named = (b"sklearn", b"joblib", b"xgboost", b"lightgbm", b"NumpyArrayWrapper")
    return head.startswith(b"\x80") and _TORCH_LEGACY not in head[:16] and any(name in head for name in named)


def _flax(glimpse: Glimpse) -> bool:
    """A msgpack map whose first key is text; the pickles that begin likewise go on with a small version number."""
    head = glimpse.head
    after = {0xDE: 3, 0xDF: 5}.get(head[0], 1) if head else 1
    is_map = head[:1] in (b"\xde", b"\xdf") or b"\x81" <= head[:1] <= b"\x8f"
    return is_map and (b"\xa1" <= head[after : after + 1] <= b"\xbf" or head[after : after + 1] in (b"\xd9", b"\xda"))


def _archived(*names: str) -> Callable[[Glimpse], bool]:
    return lambda glimpse: not glimpse.is_folder and not glimpse.names.isdisjoint(names)


def _numpy(glimpse: Glimpse) -> bool:
    names = glimpse.names
    zipped = not glimpse.is_folder and bool(names) and all(name.endswith(".npy") for name in names)
    return zipped or glimpse.head.startswith(b"\x93NUMPY")


def _onnx(glimpse: Glimpse) -> bool:
    """The fields of a ModelProto, its graph among them."""
    found = _fields(glimpse)
    return {1, 7} <= found <= {*range(1, 9), 14, 20, 25, 26}


def _coreml(glimpse: Glimpse) -> bool:
    """A version, a description, and one model whose kind is a field above 200."""
    found = _fields(glimpse)
    return {1, 2} <= found and any(number >= 200 for number in found) and found - {1, 2, 10} == {*_above(found)}


def _saved_model(glimpse: Glimpse) -> bool:
    return _fields(glimpse) == {1, 2}


def _above(found: frozenset[int]) -> frozenset[int]:
    return frozenset(number for number in found if number >= 200)


def _fields(glimpse: Glimpse) -> frozenset[int]:
    """A protobuf message that begins with field 1, a number, as those of these programs do."""
    return fields(glimpse.path) if glimpse.head.startswith(b"\x08") else frozenset()


def _tensorflow_checkpoint(glimpse: Glimpse) -> bool:
    if glimpse.is_folder:
        return any(".data-0000" in name for name in glimpse.names)
    if ".data-0000" in glimpse.path.name:  # bare numbers, which nothing but the name tells
        return True
    with glimpse.path.open("rb") as file:
        file.seek(max(glimpse.path.stat().st_size - len(_LEVELDB_END), 0))
        return file.read() == _LEVELDB_END


def _markup(glimpse: Glimpse) -> bool:
    start = glimpse.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    return start.startswith((b"<!doctype", b"<html", b"<?xml", b"<error", b"<head", b"<body"))


def _text(glimpse: Glimpse) -> bool:
    """No byte that texts do not have."""
    try:
        words = glimpse.head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(glimpse.head) - 3:  # else a letter is cut at the end of what was read
            return False
        words = glimpse.head[: error.start].decode("utf-8")
    return bool(words) and all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in words)


def _refused(name: str, recognises: Callable[[Glimpse], bool], why: str) -> Format:
    def read(path: Path, reading: Reading) -> NoReturn:
        raise RefusedError(f"refused: {why}")

    return Format(name, recognises, read, files=_inside)


def _inside(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]


def _read_text(path: Path, reading: Reading) -> NoReturn:
    with path.open("rb") as file:
        begin = file.read(200).decode("utf-8", "replace").strip().splitlines()
    shown = begin[0][:60] if begin else ""
    raise RefusedError(
        f"refused: found a text file (it begins {shown!r}), expected weights: name the checkpoint itself, and where it "
        "was downloaded, look whether the text tells why that failed"
    )


def _read_json(path: Path, reading: Reading) -> NoReturn:
    raise RefusedError(
        "refused: found a JSON file without tensors, expected weights: of a Hugging Face model or an adapter, name the "
        "folder"
    )


FILES: tuple[Format, ...] = (
    _refused(
        "GGUF",
        _starts(b"GGUF", b"lmgg", b"tjgg", b"fmgg"),
        "GGUF, the format of llama.cpp: its weights are packed in blocks for inference, and the loss is not twice "
        "differentiable in them as stored. Take the folder that it was converted from (safetensors in float32, "
        "bfloat16 or float16)",
    ),
    _refused(
        "ExecuTorch",
        _executorch,
        f"ExecuTorch (.pte), {_INFERENCE}. Take the checkpoint that it was exported from, or {_SAVE_AS}",
    ),
    _refused(
        "TensorFlow Lite",
        _starts(b"TFL3", at=4),
        f"TensorFlow Lite, {_INFERENCE}. Take the model in PyTorch that it was converted from",
    ),
    _refused(
        "PyTorch Mobile",
        _starts(b"PTMF", at=4),
        f"PyTorch Mobile, {_INFERENCE}. Take the checkpoint that it was exported from, or {_SAVE_AS}",
    ),
    _refused("ONNX", _onnx, f"ONNX, {_INFERENCE}. Take the checkpoint that it was exported from, or {_SAVE_AS}"),
    _refused("Core ML", _coreml, f"Core ML, {_INFERENCE}. Take the checkpoint that it was converted from"),
    _refused("TensorFlow", _saved_model, _SAVED_MODEL),
    _refused(
        "Keras",
        _archived("model.weights.h5"),
        "a Keras model (.keras), which PyTorch cannot load. Load it with Keras, copy its weights into the same model "
        f"in PyTorch, and {_SAVE_AS}",
    ),
    _refused(
        "HDF5",
        _starts(b"\x89HDF\r\n\x1a\n"),
        "an HDF5 file, as Keras and TensorFlow write their weights. Load it with the program that wrote it, copy its "
        f"weights into the same model in PyTorch, and {_SAVE_AS}",
    ),
    _refused(
        "NumPy",
        _numpy,
        "NumPy arrays, expected weights by name. If they are weights, "
        "safetensors.torch.save_file({name: torch.from_numpy(array), ...}, path); if they are data, name them under "
        "data:",
    ),
    _refused(
        "scikit-learn",
        _pickled_estimator,
        "a pickle of scikit-learn or joblib, and nothing in a checkpoint is run. A Hessian needs a network in "
        f"PyTorch: {_SAVE_AS}",
    ),
    _refused(
        "Flax",
        _flax,
        "a msgpack file, as Flax writes its weights. Load it with transformers 4 (from_flax=True), or copy its arrays "
        f"into the same model in PyTorch, and {_SAVE_AS}",
    ),
    _refused(
        "archive",
        lambda glimpse: glimpse.head[257:262] == b"ustar",
        "a tar archive: unpack it first (tar -xf), and name the checkpoint in it",
    ),
    _refused(
        "compressed",
        _starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!"),
        "a compressed file or archive (gzip, bzip2, xz, zstd, 7z or rar): unpack it first, and name the checkpoint in "
        "it",
    ),
)
"""Recognised by their first bytes, before a torch file is looked for."""

FOLDERS: tuple[Format, ...] = (
    _refused("TensorFlow", _holds("saved_model.pb"), _SAVED_MODEL),
    _refused(
        "Core ML",
        _holds("Manifest.json"),
        f"a Core ML package, {_INFERENCE}. Take the checkpoint that it was converted from",
    ),
    _refused(
        "Orbax",
        _holds("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"),
        f"a checkpoint of Orbax (JAX). Copy its arrays into the same model in PyTorch, and {_SAVE_AS}",
    ),
)
"""Folders that hold none of the weights that are read."""

LAST: tuple[Format, ...] = (
    _refused(
        "TensorFlow",
        _tensorflow_checkpoint,
        "a TensorFlow checkpoint, which PyTorch cannot load. Load it with TensorFlow, copy its weights into the same "
        f"model in PyTorch, and {_SAVE_AS}",
    ),
    _refused(
        "markup",
        _markup,
        "a web page or XML, expected weights: a download that failed leaves such a file. Open it in a browser to see "
        "why, and download the checkpoint itself",
    ),
    Format("JSON", lambda glimpse: _text(glimpse) and glimpse.head.lstrip().startswith(b"{"), _read_json),
    Format("text", _text, _read_text),
)
"""What is left when nothing else was recognised."""
