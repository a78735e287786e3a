"""CIFAR's files in all their published forms, byte for byte; a pickle gets nothing done beyond what they hold."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
import torch

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import cifar_files, load_data
from hessdiag.loading.datasets.cifar_pickle import unpickle
from hessdiag.spec.data import CifarData

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 3072), dtype=np.uint8)  # as stored: red, green, blue, each row by row
FINE, COARSE, TEN = ([int(label) for label in RANDOM.integers(0, classes, 6)] for classes in (100, 20, 10))


def python2(batch):
    """What Python 2's cPickle.dump(batch, file, 2) writes of a dictionary of texts, lists of numbers and an array."""

    def text(value):
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def array(value):
        made = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87Rq\x0b"
        dtype = b"cnumpy\ndtype\nq\x0dU\x02u1q\x0eK\x00K\x01\x87q\x0fRq\x10(K\x03U\x01|q\x11NNNJ"
        dtype += b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b"
        shape = b"".join(map(number, value.shape)) + b"\x86q\x0c"
        return made + b"(K\x01" + shape + dtype + b"\x89" + text(value.tobytes()) + b"q\x13tq\x14b"

    content = b"\x80\x02}q\x01("
    for place, (key, value) in enumerate(batch.items()):
        content += text(key.encode()) + b"q" + bytes([40 + 2 * place])
        if isinstance(value, np.ndarray):
            content += array(value)
        elif isinstance(value, list):
            items = b"".join(number(item) if isinstance(item, int) else text(item) for item in value)
            content += b"]q" + bytes([41 + 2 * place]) + b"(" + items + b"e"
        else:
            content += text(value) + b"q" + bytes([41 + 2 * place])
    return content + b"u."


def python3(batch, protocol=2):
    """The same dictionary, its keys bytes, as Python 3 writes it."""
    return pickle.dumps({key.encode(): value for key, value in batch.items()}, protocol)


def batch_10(rows, **more):
    return {
        "batch_label": b"training batch 1 of 5",
        "labels": [TEN[row] for row in rows],
        "data": IMAGES[rows],
        "filenames": [b"leptodactylus_pentadactylus_s_000004.png"] * len(rows),
        **more,
    }


def batch_100(rows):
    names = {"filenames": [b"a.png"] * len(rows), "batch_label": b"testing batch 1 of 1"}
    labels = {"fine_labels": [FINE[row] for row in rows], "coarse_labels": [COARSE[row] for row in rows]}
    return {**names, **labels, "data": IMAGES[rows]}


def records(rows, *labels):
    return b"".join(bytes([kind[row] for kind in labels]) + IMAGES[row].tobytes() for row in rows)


ALL = range(6)
TRAIN = [[0, 1], [2], [3], [4], [5]]  # the rows of data_batch_1 to 5


def form(name, dump=python2):
    """The folder of one published form and its files."""
    if name == "cifar-10 python":
        files = {f"data_batch_{n}": dump(batch_10(rows)) for n, rows in enumerate(TRAIN, 1)}
        return "cifar-10-batches-py", {**files, "test_batch": dump(batch_10([5, 0])), "batches.meta": b"(lp0."}
    if name == "cifar-10 binary":
        files = {f"data_batch_{n}.bin": records(rows, TEN) for n, rows in enumerate(TRAIN, 1)}
        return "cifar-10-batches-bin", {**files, "test_batch.bin": records([5, 0], TEN), "readme.html": b""}
    if name == "cifar-100 python":
        return "cifar-100-python", {"train": dump(batch_100(list(ALL))), "test": dump(batch_100([5, 0])), "meta": b""}
    return "cifar-100-binary", {"train.bin": records(ALL, COARSE, FINE), "test.bin": records([5, 0], COARSE, FINE)}


def write(path, name, kind="folder", dump=python2):
    folder, files = form(name, dump)
    if kind in ("folder", "parent"):
        place = path / folder if kind == "parent" else path
        place.mkdir(parents=True)
        for file, content in files.items():
            (place / file).write_bytes(content)
        return
    with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
        add(archive, folder, None)
        for file, content in reversed(files.items()):  # the published archives are in no order either
            add(archive, f"{folder}/{file}", content)


def add(archive, name, content, **attributes):
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    member.size = len(content or b"")
    for key, value in attributes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content or b""))


def open_data(folder, **options):
    return load_data(
        CifarData(**{"format": "cifar", "path": "data", "split": "test", **options}), lambda name: folder / name
    )


def read(folder, **options):
    batches = list(open_data(folder, **options))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]).tolist()


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        read(folder, **options)
    return str(caught.value)


FORMS = ["cifar-10 python", "cifar-10 binary", "cifar-100 python", "cifar-100 binary"]


def test_two_of_them_in_one_folder(tmp_path):
    """As torchvision downloads them; CIFAR-10's labels fit a model of 100 classes."""
    for name in ("cifar-10 python", "cifar-100 python"):
        write(tmp_path / "data", name, "parent")
    message = r"^data.path: found CIFAR in several folders \(cifar-10-batches-py, cifar-100-python\), expected one"
    with pytest.raises(UsageError, match=message):
        open_data(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "parent", "tar.gz", "tar"])
@pytest.mark.parametrize("name", FORMS)
def test_every_published_form(tmp_path, name, kind):
    write(tmp_path / "data", name, kind)
    labels = TEN if "10 " in name else FINE
    images, found = read(tmp_path, split="train", batch_size=4)
    assert images.dtype is torch.float32
    assert torch.equal(images, torch.from_numpy(IMAGES.reshape(6, 3, 32, 32)).float().div(255))
    assert found == labels
    images, found = read(tmp_path)
    assert torch.equal(images, torch.from_numpy(IMAGES[[5, 0]].reshape(2, 3, 32, 32)).float().div(255))
    assert found == [labels[5], labels[0]]


@pytest.mark.parametrize("name", ["cifar-100 python", "cifar-100 binary"])
def test_coarse_labels(tmp_path, name):
    write(tmp_path / "data", name)
    assert read(tmp_path, split="train", labels="coarse")[1] == COARSE


def test_coarse_labels_that_are_not_there(tmp_path):
    write(tmp_path / "data", "cifar-10 python")
    with pytest.raises(UsageError, match=r"data\.labels: found coarse, but CIFAR-10 python has fine alone"):
        read(tmp_path, labels="coarse")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_batches_that_python_3_wrote(tmp_path, protocol):
    write(tmp_path / "data", "cifar-10 python", dump=lambda batch: python3(batch, protocol))
    assert read(tmp_path, split="train")[1] == TEN


def test_less_mean_over_std_by_channel(tmp_path):
    write(tmp_path / "data", "cifar-10 binary")
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    images, _ = read(tmp_path, split="train", mean=mean, std=std)
    pixels = torch.from_numpy(IMAGES.reshape(6, 3, 32, 32)).float().div(255)
    by_channel = [torch.tensor(values)[:, None, None] for values in (mean, std)]
    assert torch.equal(images, pixels.sub(by_channel[0]).div(by_channel[1]))


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / "data", "cifar-10 python")
    (tmp_path / "data" / "data_batch_3").unlink()
    with pytest.raises(UsageError) as caught:
        read(tmp_path, split="train")
    words = (
        "data.path: found data_batch_1, data_batch_2, data_batch_4, data_batch_5 of the split train in data, expected "
    )
    assert str(caught.value).startswith(
        words + "data_batch_1.bin to data_batch_5.bin; or data_batch_1 to data_batch_5;"
    )


class Evil:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("RAN",)


@pytest.mark.parametrize("kind", ["folder", "tar.gz"])
@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_runs(tmp_path, monkeypatch, protocol, kind):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", "cifar-10 python", kind, lambda batch: python3({**batch, "labels": Evil()}, protocol))
    assert "refused" in refusal(tmp_path)
    assert not (tmp_path / "RAN").exists()
    pickle.loads(pickle.dumps(Evil()))  # it would have
    assert (tmp_path / "RAN").exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
REFUSED = {
    "another function": (b"\x80\x02cos\nsystem\nU\x02ls\x85R.", "asks for os.system, which CIFAR's own files never do"),
    "another of NumPy's": (b"\x80\x02cnumpy\nload\nU\x01a\x85R.", "asks for numpy.load"),
    "an attribute of an allowed one": (b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.mro__\x93.", "asks for numpy.dtype.mro__"),
    "an object": (b"\x80\x02(cnumpy\ndtype\no.", "the pickle opcode OBJ"),
    "an instance": (b"\x80\x02(inumpy\ndtype\n.", "the pickle opcode INST"),
    "a persistent id": (b"\x80\x02K\x01Q.", "the pickle opcode BINPERSID"),
    "an extension": (b"\x80\x02\x82\x01.", "the pickle opcode EXT1"),
    "a number of 2 GB": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "is not a readable batch"),
    "a text of 2 GB": (b"\x80\x02T\xff\xff\xff\x7fab.", "is not a readable batch"),
    "a memo of 32 GB": (b"\x80\x02]r\xff\xff\xff\xff.", "numbers an object 4294967295, more than it has bytes"),
    "tuples that take forever to hash": (b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.", "opcode DUP"),
    "the same by number": (
        b"\x80\x02})q\x01" + b"".join(b"h\x01h\x01\x86q\x01" for _ in range(60)) + b"K\x01s.",
        "more tuples than CIFAR's own files",
    ),
    "no dictionary": (b"\x80\x02]q\x01.", "holds a list, expected the dictionary of a batch"),
    "a state for a class": (b"\x80\x02" + RECONSTRUCT + b"}U\x01aK\x01sb.", "is not a readable batch"),
    "no array": (python2({"data": [1], "labels": [1]}), "holds no array 'data' (N, 3072)"),
    "an array of another shape": (python2({"data": IMAGES[:, :7], "labels": [1]}), "holds no array 'data' (N, 3072)"),
    "too few labels": (python2(batch_10([0, 1], labels=[3])), "holds no list 'labels' of 2 whole numbers"),
    "words as labels": (python2(batch_10([0], labels=[b"cat"])), "holds no list 'labels' of 1 whole numbers"),
    "labels beyond the classes": (python2(batch_10([0], labels=[10])), "has labels from 10 to 10, expected 0 to 9"),
    "another type": (python2(batch_10([0])).replace(b"U\x02u1", b"U\x02f8"), "an array of another type than uint8"),
    "another length": (python2(batch_10([0])).replace(b"K\x01M\x00\x0c", b"K\x02M\x00\x0c"), "but 3072 bytes follow"),
    "nothing": (b"", "is not a readable batch"),
    "a page of the web": (b"<!DOCTYPE html>", "is not a readable batch"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_pickles_that_are_none_of_cifars(tmp_path, fault):
    write(tmp_path / "data", "cifar-10 python")
    content, words = REFUSED[fault]
    (tmp_path / "data" / "test_batch").write_bytes(content)
    tracemalloc.start()
    message = refusal(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message.startswith("data.path: test_batch in data ")
    assert words in message
    assert peak < 5e6


def test_the_stand_ins_keep_nothing_of_a_file():
    content = python2(batch_10([0, 1]))
    one, other = unpickle(content), unpickle(content)
    assert {key: type(item) for key, item in one.items()} == {
        "batch_label": bytes,
        "labels": list,
        "data": np.ndarray,
        "filenames": list,
    }
    assert one["data"].tolist() == other["data"].tolist() == IMAGES[:2].tolist()


def test_binary_files_that_are_cut_short(tmp_path):
    write(tmp_path / "data", "cifar-10 binary")
    (tmp_path / "data" / "test_batch.bin").write_bytes(records([5, 0], TEN)[:-1])
    assert "test_batch.bin in data has 6145 bytes, expected a multiple of 3073" in refusal(tmp_path)
    (tmp_path / "data" / "test_batch.bin").write_bytes(records([0, 1], COARSE, FINE))
    assert "expected a multiple of 3073" in refusal(tmp_path)


def archived(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content, attributes in members:
            add(archive, name, content, **attributes)


def test_an_archive_is_never_extracted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = records([5, 0], TEN)
    archived(
        tmp_path / "data",
        ("../escaped", b"out", {}),
        ("/absolute", b"out", {}),
        ("a/test_batch", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("a/../../test_batch.bin", good, {}),
    )
    assert read(tmp_path)[1] == [TEN[5], TEN[0]]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_archives_that_are_damaged(tmp_path):
    write(tmp_path / "data", "cifar-10 python", "tar.gz")
    content = (tmp_path / "data").read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    for damaged in (content[:-20], content[: len(content) // 2], bytes(flipped), b"", b"PK\x03\x04" * 99):
        (tmp_path / "data").write_bytes(damaged)
        assert "data is not a readable folder or .tar.gz archive" in refusal(tmp_path, split="train")


def test_archives_that_hold_far_too_much(tmp_path, monkeypatch):
    good = ("test_batch.bin", records([5, 0], TEN), {})
    archived(tmp_path / "data", good, good)
    assert "holds several files test_batch.bin" in refusal(tmp_path)
    archived(tmp_path / "data", *((f"{n}", b"", {}) for n in range(1001)), good)
    assert "holds more than 1000 files" in refusal(tmp_path)
    monkeypatch.setattr(cifar_files, "_MOST_BYTES", 20_000)
    archived(tmp_path / "data", good, ("zeros", bytes(30_000), {}))
    assert "unpacks to more than 20000 bytes" in refusal(tmp_path)
    archived(tmp_path / "data", ("n" * 30_000, b"", {}), good)  # a name is read whole, however long
    assert "unpacks to more than 20000 bytes" in refusal(tmp_path)
    archived(tmp_path / "data", ("test_batch.bin", bytes(30_000), {}))
    assert "holds test_batch.bin of 30000 bytes, more than all of CIFAR" in refusal(tmp_path)
    write(tmp_path / "folder" / "data", "cifar-10 binary")
    (tmp_path / "folder" / "data" / "test_batch.bin").write_bytes(bytes(30_000))
    assert "holds test_batch.bin of 30000 bytes" in refusal(tmp_path / "folder")
