"""Files that keep a reader waiting: pipes in a folder, zeros without end, and specs of thousands of faults."""

from __future__ import annotations

import gzip
import os

import numpy as np
import pytest
import tiny
from safetensors.torch import save_file

from hessdiag.errors import CheckpointError, DataError, SpecError
from hessdiag.files import neither_file_nor_folder


def test_in_a_checkpoint(tmp_path):
    spec = tiny.write(tmp_path)
    (tmp_path / "saved").mkdir()
    save_file(tiny.weights(), tmp_path / "saved" / "model.safetensors")
    os.mkfifo(tmp_path / "saved" / "config.json")
    with pytest.raises(CheckpointError, match=r"holds config\.json, which is neither a file nor a folder"):
        tiny.load(spec, "model.checkpoint=saved")


def test_in_data(tmp_path):
    spec = tiny.write(tmp_path)
    (tmp_path / "sets" / "inner").mkdir(parents=True)
    for name, array in tiny.arrays().items():
        np.save(tmp_path / "sets" / f"{name}.npy", array)
    assert tiny.load(spec, "data.path=sets").loss_value == tiny.load(spec).loss_value
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sets" / "inner" / "z.npy").symlink_to(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"sets holds 'z\.npy', which is neither a file nor a folder"):
        tiny.load(spec, "data.path=sets")


def test_files_folders_and_links_to_nowhere_are_none(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    assert neither_file_nor_folder(tmp_path) is None
    assert neither_file_nor_folder(tmp_path / "file") is None


def test_a_spec_of_many_faults_tells_the_first_fifty(tmp_path):
    spec = tiny.write(tmp_path)
    spec.write_text(spec.read_text() + "".join(f"key{number}: 1\n" for number in range(200)))
    with pytest.raises(SpecError) as caught:
        tiny.load(spec)
    lines = str(caught.value).splitlines()
    assert len(lines) == 51
    assert lines[-1] == f"{spec}: and 150 more faults"
    assert len(caught.value.diagnostics) == 200


@pytest.mark.parametrize(
    "data",
    ["{format: idx, path: sets, split: test}", "{format: cifar, path: sets/t10k-images-idx3-ubyte.gz, split: test}"],
)
def test_zeros_after_a_gzipped_file_are_not_passed_over_one_by_one(tmp_path, data):
    spec = tiny.write(tmp_path)
    text = spec.read_text()
    spec.write_text(text[: text.index("data:")] + f"data: {data}\n")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "t10k-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 1, 0)))
    path = tmp_path / "sets" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 4, 1, 2, 3, 4))))
    os.truncate(path, 2 << 30)
    with pytest.raises(DataError, match="ends in 1048576 zero bytes or more: it is damaged, copy it again"):
        tiny.load(spec)
