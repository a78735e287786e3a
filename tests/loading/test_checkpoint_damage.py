"""Files that are cut, garbled or made to take all memory: one message each, in no time and little memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import tiny
import torch
from torch_files import contents, holds, load, refusal

from hessdiag.errors import CheckpointError, HessdiagError
from hessdiag.loading.checkpoints import Reading
from hessdiag.loading.checkpoints.archives import record_sizes
from hessdiag.loading.checkpoints.pickles import unsafe_globals

W = tiny.weights()


def saved(content: object, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> Path:
    """A zip archive of torch with a pickle of our own."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("w/data.pkl", pickled)
        for name, record in {"version": b"3\n", "byteorder": b"little", **records}.items():
            file.writestr(f"w/{name}", record)
    return path


def storage(count: int) -> bytes:
    """A state dict whose one tensor says that its storage has ``count`` numbers."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpu\x8a\x08" + struct.pack("<q", count) + b"tQK\x00K\x04\x85K\x01\x85\x89ccollections\n"
        b"OrderedDict\n)RtR"
    )
    return b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"s."


@pytest.mark.parametrize("legacy", [False, True])
def test_cut_at_every_place(tmp_path, legacy):
    whole = saved({"model": W, "epoch": 3}, legacy)
    path = tmp_path / "w.pt"
    for kept in [*range(1, 40), *range(40, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:kept])
        words = refusal(path)
        assert "damaged" in words or "found neither" in words or "found a text file" in words, (kept, words)


def test_the_storage_that_a_legacy_file_lacks_is_told(tmp_path):
    (tmp_path / "w.pt").write_bytes(saved({"a": torch.zeros(1000)}, legacy=True)[:-2000])
    words = refusal(tmp_path / "w.pt")
    assert "(its tensors would take 4000 bytes): it was cut short or overwritten, copy or save it again" in words


HUGE = {
    "more than its record": (storage(6), "tensor record 0 should have 24 bytes and has 16"),
    "more than any memory": (storage(1 << 60), f"tensor record 0 should have {1 << 62} bytes and has 16"),
    "less than nothing": (storage(-1), "tensor record 0 should have -4 bytes and has 16"),
    "no record": (storage(4).replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"), "should have 16 bytes and is not"),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_storage_that_is_not_as_its_pickle_says(tmp_path, name):
    pickled, words = HUGE[name]
    assert words in refusal(archive(tmp_path / "w.pt", pickled, **{"data/0": bytes(16)}))


def test_the_same_archive_with_the_right_storage_loads(tmp_path):
    path = archive(tmp_path / "w.pt", storage(4), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    assert contents(path).tensors["a"].tolist() == [1, 2, 3, 4]
    assert record_sizes(path) == {"0": 16}


def test_a_compressed_archive_is_read_right(tmp_path):
    """Mapped into memory, its compressed bytes would be taken for weights."""
    values = torch.arange(1000.0)
    path = archive(
        tmp_path / "w.pt", storage(1000).replace(b"K\x04\x85", b"M\xe8\x03\x85"), zipfile.ZIP_DEFLATED,
        **{"data/0": values.numpy().tobytes()},
    )  # fmt: skip
    assert path.stat().st_size < 3000  # else this shows nothing
    assert torch.equal(contents(path).tensors["a"], values)


def test_bombs_in_the_archive(tmp_path):
    path = archive(tmp_path / "w.pt", storage(4), zipfile.ZIP_DEFLATED, **{"data/0": bytes(1 << 24)})
    assert "inflate from" in refusal(path)
    assert "and torch.save does not compress: save it again" in refusal(path)
    assert unsafe_globals(path) == []
    path = archive(tmp_path / "w.pt", b"\x80\x02" + b"0" * (1 << 24), zipfile.ZIP_DEFLATED)
    assert "inflate from" in refusal(path)
    assert unsafe_globals(path) == []
    path = archive(tmp_path / "w.pt", storage(4), zipfile.ZIP_LZMA, **{"data/0": bytes(16)})
    assert "refused: its records are compressed in a way that torch does not read: save it again" in refusal(path)


def test_records_that_lie_over_each_other(tmp_path):
    path = archive(tmp_path / "w.pt", storage(4), **{f"data/{i}": bytes(1000) for i in range(4)})
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    path.write_bytes(content[:200] + content[start:-8] + struct.pack("<L", 200) + content[-4:] + b"")
    assert "records take" in refusal(path) or "zip directory cannot be read" in refusal(path)


def test_two_records_of_one_name(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
            for name in ("w/data.pkl", "w/data.pkl"):
                file.writestr(name, storage(4))
    assert "several records of one name (w/data.pkl, w/data.pkl), as torch.save writes none" in refusal(
        tmp_path / "w.pt"
    )


def nested(count: int) -> bytes:
    return b"\x80\x02}" + b")" + b"\x85" * count + b"K\x01s."


STRANGE = {
    "deep tuples as a key": (nested(100_000), "refused: its pickle nests tuples more than 500 deep"),
    "memory": (
        b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\n\x8a\x07" + (1 << 50).to_bytes(7, "little") + b"\x85Rs.",
        "damaged or refused: its pickle asks for more memory than is free, in a file of",
    ),
    "a text of 4 GB": (b"\x80\x02X\xff\xff\xff\xff.", "its pickle breaks off or is garbled ("),
    "the memo's end": (b"\x80\x02h\x05.", "its pickle breaks off or is garbled (its stack does not add up)"),
    "too little": (b"\x80\x02R.", "its pickle breaks off or is garbled (its stack does not add up)"),
    "an unknown step": (b"\x80\x02\xff.", "its pickle breaks off or is garbled ("),
    "a list that holds itself": (b"\x80\x02]q\x00h\x00a.", "found a list, expected a state dict"),
    "an extension": (b"\x80\x02\x82\x05.", "its pickle calls copyreg.extension 5"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_pickles(tmp_path, name):
    pickled, words = STRANGE[name]
    said = refusal(archive(tmp_path / "w.pt", pickled))
    assert words in said, said


def test_a_pickle_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("hessdiag.loading.checkpoints.pickles._MOST_STEPS", 1000)
    said = refusal(archive(tmp_path / "w.pt", b"\x80\x02" + b"]0" * 1000 + b"N."))
    assert "refused: its pickle has more than 1000 steps, far more than weights need. Save the weights alone" in said


def test_billion_laughs(tmp_path):
    laughs = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(60)
    )
    said = refusal(archive(tmp_path / "w.pt", laughs + b"."))
    assert "found a list, expected a state dict" in said


def test_unsafe_globals_of_other_files(tmp_path):
    for content in (b"", b"\x80", b"text", b"PK\x03\x04", np_bytes()):
        (tmp_path / "other").write_bytes(content)
        try:
            assert unsafe_globals(tmp_path / "other") == []
        except CheckpointError as error:
            assert "its pickle breaks off" in str(error)  # noqa: PT017
    (tmp_path / "other").write_bytes(saved(W))
    assert unsafe_globals(tmp_path / "other") == []


def np_bytes() -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, x=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bits(tmp_path, legacy):
    """Every bit of the pickle's part in turn: it loads as it was, or is told; it never fails otherwise."""
    whole = saved({"model": W, "epoch": 3}, legacy)
    path = tmp_path / "w.pt"
    loaded = 0
    for place in range(0, min(len(whole), 1500), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            loaded += holds(load(path)[0]) or legacy  # a legacy file has no checksums
        except HessdiagError as error:
            assert len(str(error)) < 1000  # noqa: PT017
    assert loaded < 130


LARGE = """\
import sys, torch
from pathlib import Path
sys.path[:0] = {paths!r}
from hessdiag.loading.checkpoints import Reading, identify

def resident(kind):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024

path = Path({path!r})
before = resident("RssAnon")
found = identify(path).read(path, Reading())
assert path.name in Path("/proc/self/maps").read_text()
print(resident("RssAnon") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what of its memory is mapped")
def test_a_large_file_is_mapped_not_read(tmp_path):
    torch.save({"model": {"a": torch.zeros(1 << 24)}}, tmp_path / "large.pt")
    script = LARGE.format(paths=[p for p in sys.path if p], path=str(tmp_path / "large.pt"))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 20 << 20  # of 64 MiB


def test_a_file_that_cannot_be_read(tmp_path):
    torch.save(W, tmp_path / "w.pt")
    os.chmod(tmp_path / "w.pt", 0)
    if os.access(tmp_path / "w.pt", os.R_OK):
        pytest.skip("this user may read every file")
    assert "could not be read" in refusal(tmp_path / "w.pt")


def test_a_pickle_that_torch_did_not_write(tmp_path):
    (tmp_path / "w.bin").write_bytes(pickle.dumps({"a": [1.0, 2.0]}, 2))
    assert refusal(tmp_path / "w.bin", **vars(Reading())) == (
        "w.bin: found a pickle that torch.save did not write, expected a state dict saved by torch.save. Save the "
        "weights alone: torch.save(model.state_dict(), ...) or safetensors"
    )
