"""MNIST's own files, gzipped or not: the numbers that torchvision's transforms would give, and no room for lies."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import load_data, room
from hessdiag.spec.data import IdxData

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(array, dtype="u1", shape=None):
    """The bytes of an IDX file, by its description: big-endian throughout."""
    shape = array.shape if shape is None else shape
    head = bytes([0, 0, CODES[dtype], len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return head + array.astype(dtype).tobytes()


def pictures(count=7):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 4, 3), dtype=np.uint8), random.integers(0, 3, count, dtype=np.uint8)


def write(folder, prefix="t10k", mark="-", suffix="", count=7):
    folder.mkdir(exist_ok=True)
    for name, axes, array in zip(("images", "labels"), ("idx3", "idx1"), pictures(count), strict=True):
        content = idx(array)
        path = folder / f"{prefix}-{name}{mark}{axes}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)


def open_data(folder, **options):
    return load_data(
        IdxData(**{"format": "idx", "path": "mnist", "split": "test", **options}), lambda name: folder / name
    )


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        list(open_data(folder, **options))
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(("split", "prefix"), [("test", "t10k"), ("train", "train")])
def test_the_published_names(tmp_path, split, prefix, mark, suffix):
    write(tmp_path / "mnist", prefix, mark, suffix)
    images, labels = pictures()
    (found, targets), *rest = open_data(tmp_path, split=split, batch_size=5)
    assert found.dtype is torch.float32
    assert found.shape == (5, 1, 4, 3)
    assert torch.equal(found, torch.from_numpy(images[:5, None]).to(torch.float32).div(255))
    assert targets.dtype is torch.int64
    assert torch.cat([targets, rest[0][1]]).tolist() == labels.tolist()


def test_less_mean_over_std_as_torchvision_does(tmp_path):
    write(tmp_path / "mnist")
    (found, _), *_ = open_data(tmp_path, mean=[0.1307], std=[0.3081])
    pixels = torch.from_numpy(pictures()[0][:, None]).to(torch.float32).div(255)
    assert torch.equal(found, pixels.sub(torch.tensor(0.1307)).div(torch.tensor(0.3081)))
    with pytest.raises(UsageError, match=r"data\.mean: found 3 numbers, expected one for each of the 1 channels"):
        open_data(tmp_path, mean=[0.1, 0.2, 0.3])


def test_other_names_by_inputs_and_targets(tmp_path):
    write(tmp_path / "mnist", "emnist-digits-test", suffix=".gz")
    names = [f"emnist-digits-test-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    for suffix in ("", ".gz"):  # a name without the suffix will do
        data = open_data(tmp_path, inputs=names[0] + suffix, targets=names[1] + suffix)
        assert [len(y) for _, y in data] == [7]


def test_an_audit_of_the_loss(tmp_path):
    write(tmp_path / "mnist", suffix=".gz")
    tiny.write(tmp_path)
    (tmp_path / "model.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
    )
    data = "data={format: idx, path: mnist, split: test, mean: [0.5], std: [0.25], batch_size: 3}"
    problem = tiny.load(tmp_path / "audit.yaml", data, "model.checkpoint=null", dtype="float64")
    images, labels = pictures()
    pixels = (torch.from_numpy(images)[:, None].float() / 255 - 0.5) / 0.25
    expected = F.cross_entropy(problem.model(pixels.double()), torch.from_numpy(labels).long())
    assert problem.loss_value == pytest.approx(expected.item(), rel=1e-12)
    other = tiny.load(tmp_path / "audit.yaml", data, "data.batch_size=7", "model.checkpoint=null", dtype="float64")
    assert other.data_info.fingerprint == problem.data_info.fingerprint


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(
    ("dtype", "into"),
    [
        ("i1", torch.float32),
        (">i2", torch.float32),
        (">i4", torch.float64),
        (">f4", torch.float32),
        (">f8", torch.float64),
    ],
)
def test_every_type_of_element(tmp_path, dtype, into, gzipped):
    write(tmp_path / "mnist")
    values = np.array([[-3, 1], [100, 2]] * 7).reshape(7, 2, 2)
    content = idx(values, dtype)
    images = tmp_path / "mnist" / "t10k-images-idx3-ubyte"
    images.write_bytes(gzip.compress(content) if gzipped else content)
    (found, _), *_ = open_data(tmp_path)
    assert found.dtype is into
    assert found[:, 0].tolist() == values.tolist()  # as they are: only bytes have a range


@pytest.mark.parametrize("shape", [(7, 12), (7, 2, 2, 3)])
def test_other_numbers_of_axes(tmp_path, shape):
    write(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte").write_bytes(idx(np.full(shape, 51)))
    (found, _), *_ = open_data(tmp_path)
    assert found.shape == shape
    assert (found == torch.tensor(51.0) / 255).all()


def test_a_subset_from_a_mapped_file(tmp_path):
    write(tmp_path / "mnist", count=100)
    images, labels = pictures(100)
    data = open_data(tmp_path, max_examples=11, seed=3, batch_size=4)
    rows = np.sort(np.random.default_rng(3).choice(100, 11, replace=False))
    assert torch.cat([y for _, y in data]).tolist() == labels[rows].tolist()
    assert torch.equal(torch.cat([x for x, _ in data]), torch.from_numpy(images[rows, None]).float().div(255))
    assert isinstance(data.examples._pixels.base, np.memmap)


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / "mnist", "train")
    with pytest.raises(
        UsageError, match=r"data\.path: found no file 't10k-images-idx3-ubyte' .*which has: train-images"
    ):
        open_data(tmp_path)
    with pytest.raises(UsageError, match=r"data\.inputs: found no file 'nope'"):
        open_data(tmp_path, inputs="nope")


BAD = {
    "nothing": (b"", "begins with nothing, expected an IDX file"),
    "a picture": (b"\x89PNG\r\n", "begins with 89 50 4e 47"),
    "an unknown type": (b"\0\0\x0a\x01\0\0\0\x01\0", "begins with 00 00 0a 01"),
    "no axes": (b"\0\0\x08\0" + bytes(9), "begins with 00 00 08 00"),
    "half a header": (b"\0\0\x08\x03\0\0\0\x07", "ends within its header of 3 axes"),
    "too few": (idx(np.zeros((7, 4, 3)))[:-5], "uint8 of shape (7, 4, 3), 84 bytes, but 79 bytes follow"),
    "too many": (idx(np.zeros((7, 4, 3))) + b"ab", "84 bytes, but 86 bytes follow"),
    "more than any machine": (b"\0\0\x0e\x08" + b"\xff" * 32, "1e+21 GB, but 0 bytes follow"),
    "255 axes": (b"\0\0\x0e\xff" + b"\xff" * 2000, "and at most 8 axes"),
    "4 EB": (b"\0\0\x0e\x02" + b"\xff" * 8 + bytes(99), "1.48e+11 GB, but 99 bytes follow"),
    "no images": (idx(np.zeros(7)), "found images of shape (7,)"),
    "other labels": (idx(np.zeros((6, 4, 3))), "found 6 images and 7 labels"),
}


@pytest.mark.parametrize("fault", BAD)
def test_headers_that_lie(tmp_path, fault):
    write(tmp_path / "mnist")
    content, words = BAD[fault]
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte").write_bytes(content)
    assert words in refusal(tmp_path)


GZIPPED = {
    "too few": (gzip.compress(idx(np.zeros((7, 4, 3)))[:-5]), "84 bytes, but 79 bytes follow"),
    "too many": (gzip.compress(idx(np.zeros((7, 4, 3))) + b"ab"), "84 bytes, but more than 84 bytes follow"),
    "cut short": (gzip.compress(idx(pictures()[0]))[:-30], "cannot be read (Compressed file ended"),
    "another checksum": (gzip.compress(idx(pictures()[0]))[:-8] + bytes(8), "cannot be read (CRC check failed"),
    "a lie": (gzip.compress(b"\0\0\x0e\x02" + b"\xff" * 8 + bytes(99)), "but at most"),
}


@pytest.mark.parametrize("fault", GZIPPED)
def test_gzipped_files_that_lie(tmp_path, fault):
    write(tmp_path / "mnist", suffix=".gz")
    content, words = GZIPPED[fault]
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    assert words in refusal(tmp_path)


def test_a_bomb_is_unpacked_no_further_than_its_header(tmp_path):
    write(tmp_path / "mnist", suffix=".gz")
    bomb = gzip.compress(idx(np.zeros((7, 4, 3))) + bytes(50_000_000), 1)
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    assert "more than 84 bytes follow" in refusal(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e7


def test_what_does_not_fit_is_told_how_to(tmp_path, monkeypatch):
    write(tmp_path / "mnist", suffix=".gz")
    monkeypatch.setattr(room, "available_memory", lambda device: 50)
    assert "of which 5e-08 GB are free: gunzip it, so that it is read piecewise" in refusal(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(room, "_BOMB_BYTES", 80)
    monkeypatch.setattr(room, "_BOMB_RATIO", 0.1)
    assert "which no real data do" in refusal(tmp_path)
