"""The fuzzing notices what it looks for: with a spec's own code, which may do anything, each promise can be broken."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zipfile

import fuzz_program
import numpy as np
import pytest
import tiny
from fuzz_mutations import BOMB_BYTES, Inside, Mutation, Records, Step, Whole, unpack
from fuzz_program import read_folder
from safetensors.torch import save

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the worker forks, and counts memory as Linux does")

BROKEN = {
    "open('../leaked', 'w')": "ESCAPED: opened '../leaked' for writing",
    "__import__('os').mkdir('../leaked')": "ESCAPED: os.mkdir",
    "__import__('os').system('true')": "ESCAPED: os.system",
    "__import__('socket').create_connection(('127.0.0.1', 9))": "ESCAPED: socket",
    "__import__('ctypes').CDLL(None).creat(b'leaked', 0o600)": "files were touched: ",
    "__import__('os').abort()": "exit -6: expected exit 0, 2 or 3",
    "while True: pass": "hung for 2 s",
    "b'1' * (3 << 29)": "GiB of memory",
    "print('Traceback', file=__import__('sys').stderr)": "has something on stderr",
    "raise KeyboardInterrupt": "expected exit 0, 2 or 3",
    "raise ValueError('two' + chr(10) + 'lines')": "more than one line",
    "raise ValueError('out of memory')": "says 'out of memory'",
}


def with_code(folder, code):
    tiny.write(folder)
    model = (folder / "model.py").read_text().replace("    return", f"    {code}\n    return")
    (folder / "model.py").write_text(model)
    return read_folder(folder)


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_promise_is_noticed(program, tmp_path, monkeypatch, code):
    if code == "while True: pass":  # the others may take what a busy machine needs
        monkeypatch.setattr(fuzz_program, "SECONDS", 2.0)
    wrong = program.run(with_code(tmp_path, code), "trace", "audit.yaml", "--quiet")
    assert BROKEN[code] in "\n".join(wrong)
    assert program.run(with_code(tmp_path, "pass"), "trace", "audit.yaml", "--quiet") == []  # and the next run is well


def zipped(**records):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return raw.getvalue()


def tarred():
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("one")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"1 one"))
    return raw.getvalue()


def npy():
    raw = io.BytesIO()
    np.save(raw, np.arange(3))
    return raw.getvalue()


CONTAINERS = {
    "zip": zipped(one=b"1 one", two=b"2"),
    "gzip": gzip.compress(b"1 one"),
    "tar": tarred(),
    "safetensors": save({"w": tiny.weights()["0.bias"]}),
    "npy": npy(),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_changed_container_is_whole_again(name):
    content = CONTAINERS[name]
    parts = unpack(content).parts
    assert unpack(unpack(content).close(parts)).parts[0][1].strip() == parts[0][1].strip()
    changed = Inside(0, Step("number", 0, "77"), deeper=False)(content)
    assert changed != content
    assert b"77" in unpack(changed).parts[0][1]


def test_a_bomb_says_what_it_inflates_to():
    content = Records("bomb", 0, "")(CONTAINERS["zip"])
    assert len(content) < BOMB_BYTES / 500
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.getinfo("one").file_size == BOMB_BYTES
        with archive.open("one") as file:
            assert file.read(7) == b"1 one\0\0"


def test_a_mutation_changes_what_it_may():
    files = {"a": b"12", "b": b"34", "spec.yaml": b"56"}
    found = Mutation(((0, Step("cut", 1)), (1, Whole("exchange", 0))))(files, lambda name: name in ("a", "b"))
    assert found == {"a": b"34", "b": b"1", "spec.yaml": b"56"}
    assert files["a"] == b"12"
