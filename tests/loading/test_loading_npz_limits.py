"""Arrays in folders are mapped; what does not fit, or is no array of numbers, is refused before room is made for it."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import tiny
import torch

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import load_data, room
from hessdiag.spec.data import NpzData


def open_data(folder, path="data.npz", inputs="x", targets="y", **options):
    spec = NpzData(format="npz", path=path, inputs=inputs, targets=targets, **options)
    return load_data(spec, lambda name: folder / name)


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        list(open_data(folder, **options))
    return str(caught.value)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def declaring(shape, dtype="<f8"):
    """A header of numbers that are not there."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_a_folder_is_the_same_as_the_archive_of_its_files(tmp_path):
    spec = tiny.write(tmp_path)
    archive = tiny.load(spec)
    with zipfile.ZipFile(tmp_path / "data.npz") as file:
        file.extractall(tmp_path / "unpacked")
    folder = tiny.load(spec, "data.path=unpacked")
    assert folder.loss_value == archive.loss_value
    assert folder.data_info.fingerprint == archive.data_info.fingerprint


def test_a_folder_has_arrays_of_any_order_and_width_and_below_it(tmp_path):
    folder = tmp_path / "arrays"
    (folder / "train").mkdir(parents=True)
    x = np.arange(12, dtype=">f8").reshape(4, 3)
    np.save(folder / "train" / "x.npy", np.asfortranarray(x))
    np.save(folder / "y.npy", np.array([3, 2, 1, 0], ">u2"))
    (inputs, targets), *rest = open_data(tmp_path, "arrays", inputs="train/x", batch_size=3)
    assert inputs.tolist() == x[:3].tolist()
    assert targets.dtype is torch.int64
    assert rest[0][1].tolist() == [0]
    with pytest.raises(UsageError, match="which has: train/x, y"):
        open_data(tmp_path, "arrays", inputs="x")


def test_an_array_of_a_folder_stays_in_its_file(tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    rows = 40_000
    with (folder / "x.npy").open("wb") as file:  # a sparse file of 4 GB
        file.write(declaring((rows, 25_000), "<f4"))
        file.truncate(file.tell() + 4 * rows * 25_000)
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(7).tobytes())
    np.save(folder / "y.npy", np.arange(rows))
    tracemalloc.start()
    data = open_data(tmp_path, "arrays", max_examples=50, batch_size=5)
    targets = [int(y) for x, labels in data for y in labels if not x.any()]
    last, _ = data.examples.batch(np.array([1, rows - 1]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(targets) == 50
    assert last[1, -1] == 7
    assert peak < 30e6


def test_a_model_cannot_write_into_the_file(tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "x.npy", np.ones((3, 2)))
    np.save(folder / "y.npy", np.ones(3))
    (inputs, _), *_ = open_data(tmp_path, "arrays")
    inputs.zero_()
    assert np.load(folder / "x.npy").all()


def test_an_empty_folder_and_empty_arrays(tmp_path):
    (tmp_path / "arrays").mkdir()
    with pytest.raises(UsageError, match="which has: none"):
        open_data(tmp_path, "arrays")
    np.save(tmp_path / "arrays" / "x.npy", np.ones((0, 2)))
    np.save(tmp_path / "arrays" / "y.npy", np.ones(0))
    assert "holds no examples" in refusal(tmp_path, path="arrays")


def test_a_bare_array_is_told_to_be_named_by_its_folder(tmp_path):
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", np.ones((3, 2)))
    assert "name the folder that holds it (arrays)" in refusal(tmp_path, path="arrays/x.npy")


@pytest.mark.parametrize(
    ("dtype", "into"),
    [("f2", torch.float16), ("?", torch.bool), ("u2", torch.int64), ("u8", torch.int64), ("c8", torch.complex64)],
)
def test_types_that_a_model_may_take(tmp_path, dtype, into):
    np.savez(tmp_path / "data.npz", x=np.array([[0], [1]], dtype), y=np.array([0, 1]))
    (inputs, _), *_ = open_data(tmp_path)
    assert inputs.dtype is into
    assert inputs.to(torch.complex64).flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array(["2020-01-01"] * 2, "M8[D]"), "type datetime64[D], expected numbers"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "type [('a', '<f4'), ('b', '<i4')], expected numbers"),
        (np.zeros(2, [("é", "f4"), ("ж", "i4")]), "expected numbers"),
        (np.zeros(2, np.longdouble), "expected numbers"),
        (np.array([b"ab", b"c"]), "type |S2, expected numbers"),
        (np.array([2**63, 1], np.uint64), "found the whole number 9223372036854775808, expected numbers below 2^63"),
        (np.array([{}, None]), "holds Python objects, which are not unpickled"),
    ],
)
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_types_that_no_model_takes(tmp_path, array, words, form):
    arrays = {"x": array, "y": np.zeros(2)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stored array in format 3.0")
        if form == "archive":
            np.savez(tmp_path / "data.npz", **arrays)
        else:
            (tmp_path / "data.npz").mkdir()
            for name, item in arrays.items():
                np.save(tmp_path / "data.npz" / f"{name}.npy", item)
    assert words in refusal(tmp_path)


def archive(folder, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(folder / "data.npz", "w", compression) as file:
        for name, content in {"y": npy(np.zeros(2)), **members}.items():
            file.writestr(f"{name}.npy", content)


HEADERS = {
    "more than the file": declaring((10**6, 10**6)),
    "more than any machine": declaring((2**62, 2**62)),
    "a negative length": declaring((-1, -2)),
    "less than the file": declaring((1,)) + bytes(80),
    "not a shape": declaring((2,)).replace(b"(2,)", b"('')"),
    "not a header": b"\x93NUMPY\x01\x00\xff\xff{}",
    "no such version": b"\x93NUMPY\x09\x00" + bytes(200),
    "nothing": b"",
}


@pytest.mark.parametrize("form", ["stored", "deflated", "folder"])
@pytest.mark.parametrize("fault", HEADERS)
def test_headers_that_lie(tmp_path, fault, form):
    if form == "folder":
        (tmp_path / "data.npz").mkdir()
        (tmp_path / "data.npz" / "x.npy").write_bytes(HEADERS[fault])
        np.save(tmp_path / "data.npz" / "y.npy", np.zeros(2))
    else:
        archive(tmp_path, zipfile.ZIP_DEFLATED if form == "deflated" else zipfile.ZIP_STORED, x=HEADERS[fault])
    tracemalloc.start()
    assert "data.npz" in refusal(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def inflating(folder, declared):
    """An archive whose directory declares a member of so many bytes; what would fill it is beside the point."""
    archive(folder, zipfile.ZIP_DEFLATED, x=declaring((declared // 8,)) + bytes(10**5))
    content = bytearray((folder / "data.npz").read_bytes())
    place = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[place + 24 : place + 28] = struct.pack("<I", declared)
    (folder / "data.npz").write_bytes(content)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    inflating(tmp_path, 3 * 10**9)
    assert "grows from" in (message := refusal(tmp_path))
    assert "to 3 GB, which no real data do: unpack the archive (python -m zipfile -e data.npz FOLDER)" in message


def test_an_array_beyond_the_free_memory_is_refused_with_a_way_on(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x=np.zeros((1000, 10)), y=np.zeros(1000))
    monkeypatch.setattr(room, "available_memory", lambda device: 90_000)
    assert "array 'x' in data.npz takes 8.01e-05 GB in memory, of which 9e-05 GB are free" in refusal(tmp_path)


def test_an_array_that_stands_twice(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "data.npz", "w") as file,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Duplicate name")
        for name in ("x", "x", "y"):
            file.writestr(f"{name}.npy", npy(np.zeros(2)))
    assert "found several arrays 'x' in data.npz, expected one" in refusal(tmp_path)
    assert [y.tolist() for _, y in open_data(tmp_path, inputs="y")] == [[0, 0]]


def test_a_locked_archive(tmp_path):
    archive(tmp_path, x=npy(np.zeros(2)))
    content = (tmp_path / "data.npz").read_bytes()
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := content.find(mark, place + 1)) >= 0:
            content = content[: place + flags] + b"\x01" + content[place + flags + 1 :]
    (tmp_path / "data.npz").write_bytes(content)
    assert "is not a readable .npz archive" in (message := refusal(tmp_path))
    assert "encrypted" in message
