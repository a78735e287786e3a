"""Files of other programs: recognised by what is in them, refused with what to take instead."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints import Reading, load_into, load_whole


def message(path: Path) -> str:
    """What is said, whether or not the spec names what builds the network."""
    said = []
    for load in (
        lambda: load_into(tiny.network(), path, path.name, Reading()),
        lambda: load_whole(path, path.name, Reading(trust=True)),
    ):
        with pytest.raises(CheckpointError) as caught:
            load()
        assert caught.value.exit_code == 3
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert said[0].startswith(f"{path.name}: ")
    assert "\n" not in said[0]
    return said[0]


def field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf message, written by hand."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def onnx() -> bytes:
    """A ModelProto: y = Identity(x), with an initializer longer than what is looked at first."""
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    initializer = field(1, 5000) + field(2, 1) + field(8, b"w") + field(9, bytes(20_000))
    graph = field(1, node) + field(2, b"graph") + field(5, initializer)
    return field(1, 8) + field(2, b"pytorch") + field(3, b"2.13") + field(7, graph) + field(8, field(2, 17))


def core_ml() -> bytes:
    return field(1, 4) + field(2, field(1, field(1, b"x"))) + field(500, bytes(5000))


def keras() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, b"{}")
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros((2, 3)))
    return buffer.getvalue()


def numpy_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"), io.BytesIO())
    return buffer.getvalue()


def estimator() -> bytes:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    return pickle.dumps(linear_model.LogisticRegression())


def joblib_dump(compress: int = 0) -> bytes:
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    buffer = io.BytesIO()
    joblib.dump({"weight": np.zeros((20, 30))}, buffer, compress=compress)
    return buffer.getvalue()


HTML = "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
FILES = {
    "model.gguf": (lambda: b"GGUF\x03\0\0\0" + bytes(64), ["GGUF, the format of llama.cpp", "converted from"]),
    "old.ggml": (lambda: b"lmgg" + bytes(64), ["llama.cpp"]),
    "model.onnx": (onnx, ["ONNX, a graph for inference", "Take the checkpoint that it was exported from"]),
    "model.pte": (lambda: b"\x20\0\0\0ET12" + bytes(64), ["ExecuTorch (.pte)", "exported from"]),
    "model.tflite": (lambda: b"\x1c\0\0\0TFL3" + bytes(64), ["TensorFlow Lite"]),
    "model.ptl": (lambda: b"\x1c\0\0\0PTMF" + bytes(64), ["PyTorch Mobile"]),
    "model.mlmodel": (core_ml, ["Core ML"]),
    "saved_model.pb": (lambda: field(1, 1) + field(2, bytes(9000)), ["a TensorFlow SavedModel"]),
    "model.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), ["an HDF5 file, as Keras and TensorFlow write"]),
    "model.keras": (keras, ["a Keras model"]),
    "model.msgpack": (lambda: b"\x81\xa6params\x81\xa5Dense\xc0", ["a msgpack file, as Flax writes"]),
    "weights.npz": (numpy_archive, ["NumPy arrays, expected weights by name", "safetensors.torch.save_file"]),
    "weights.npy": (numpy_array, ["NumPy arrays"]),
    "model.pkl": (estimator, ["a pickle of scikit-learn or joblib"]),
    "model.joblib": (joblib_dump, ["a pickle of scikit-learn or joblib"]),
    "model.tar": (tar, ["a tar archive: unpack it first"]),
    "model.tar.gz": (lambda: gzip.compress(tar()), ["a compressed file or archive", "unpack it first"]),
    "model.bz2": (lambda: bz2.compress(b"weights"), ["unpack it first"]),
    "model.xz": (lambda: lzma.compress(b"weights"), ["unpack it first"]),
    "page.html": (lambda: HTML.encode(), ["a web page or XML", "a download that failed"]),
    "error.xml": (
        lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        ["a web page or XML", "a download that failed"],
    ),
    "note.txt": (lambda: "Éntry not found\n".encode(), ["a text file (it begins 'Éntry not found')"]),
    "long.txt": (lambda: b"a" * 4095 + "é".encode() * 9000, ["a text file"]),
    "config.json": (lambda: b'{"hidden_size": 16}', ["a JSON file without tensors", "name the folder"]),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["run git lfs pull"]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shown", ["as named", "as a checkpoint"])
def test_what_it_is_and_what_to_take_instead(tmp_path, name, shown):
    content, words = FILES[name]
    path = tmp_path / (name if shown == "as named" else "model.pt")
    path.write_bytes(content())
    said = message(path)
    assert [word for word in words if word not in said] == [], said
    assert "refused" in said or "git lfs" in said


def test_folders_of_tensorflow_core_ml_and_jax(tmp_path):
    for name, inside, words in (
        ("saved", "saved_model.pb", "a TensorFlow SavedModel"),
        ("model.mlpackage", "Manifest.json", "a Core ML package"),
        ("orbax", "_METADATA", "a checkpoint of Orbax (JAX)"),
        ("trained", "model.ckpt-5.data-00000-of-00001", "a TensorFlow checkpoint"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).write_bytes(b"\x08\x01")
        assert f"refused: {words}" in message(tmp_path / name)


def test_tensorflows_checkpoints(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(bytes(100) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb")
    assert "a TensorFlow checkpoint" in message(tmp_path / "model.ckpt.index")
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(np.random.default_rng(0).bytes(100))
    assert "a TensorFlow checkpoint" in message(tmp_path / "model.ckpt.data-00000-of-00001")


class Estimator:
    """A pickle that looks like scikit-learn's, and makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),), {"module": "sklearn.linear_model"}


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_runs_whatever_it_looks_like(tmp_path, protocol):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Estimator(tmp_path / "RAN"), protocol))
    message(tmp_path / "model.pkl")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("cut", [1, 2, 5, 100, 5000, -1])
def test_a_cut_onnx_file_is_still_told(tmp_path, cut):
    (tmp_path / "model.onnx").write_bytes(onnx()[:cut])
    assert "model.onnx: found neither safetensors nor" in message(tmp_path / "model.onnx")
