"""Tensors of a safetensors file become batches; the file is mapped."""

from __future__ import annotations

import json
import struct

import pytest
import tiny
import torch
from safetensors.torch import save_file

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import load_data
from hessdiag.spec.data import SafetensorsData


def open_data(folder, inputs="x", targets="y", **options):
    spec = SafetensorsData(format="safetensors", path="data.safetensors", inputs=inputs, targets=targets, **options)
    return load_data(spec, lambda name: folder / name)


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        list(open_data(folder, **options))
    return str(caught.value)


def save(folder, **tensors):
    save_file(tensors, folder / "data.safetensors")


def raw(folder, header, body=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    (folder / "data.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)


def test_the_loss_is_that_of_the_same_arrays(tmp_path):
    spec = tiny.write(tmp_path)
    save(tmp_path, **{name: torch.from_numpy(array) for name, array in tiny.arrays().items()})
    problem = tiny.load(spec, "data.format=safetensors", "data.path=data.safetensors")
    assert problem.loss_value == tiny.load(spec).loss_value
    assert problem.data_info == tiny.load(spec).data_info


def test_inputs_by_list_and_by_mapping_and_no_targets(tmp_path):
    save(tmp_path, a=torch.arange(5), b=torch.ones(5, 2))
    (listed, none), *_ = open_data(tmp_path, ["a", "b"], None, batch_size=2)
    assert [tuple(item.shape) for item in listed] == [(2,), (2, 2)]
    assert none is None
    (mapped, targets), *_ = open_data(tmp_path, {"ids": "a"}, "b", batch_size=3)
    assert mapped["ids"].tolist() == [0, 1, 2]
    assert targets.shape == (3, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool])
def test_types(tmp_path, dtype):
    save(tmp_path, x=torch.tensor([[1.0], [0.0]]).to(dtype), y=torch.tensor([1, 0]))
    (inputs, _), *_ = open_data(tmp_path)
    assert inputs.dtype is dtype
    assert inputs.float().tolist() == [[1], [0]]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_wide_unsigned_numbers_become_int64(tmp_path, dtype):
    save(tmp_path, x=torch.ones(2, 1), y=torch.tensor([1, 7]).to(dtype))
    (_, targets), *_ = open_data(tmp_path)
    assert targets.dtype is torch.int64
    assert targets.tolist() == [1, 7]


def test_it_is_mapped(tmp_path):
    with (tmp_path / "data.safetensors").open("wb") as file:  # 1 GB that the disk does not have
        size = 10**9
        header = {"x": {"dtype": "F32", "shape": [25_000, 10**4], "data_offsets": [0, size]}}
        header["y"] = {"dtype": "I64", "shape": [25_000], "data_offsets": [size, size + 200_000]}
        text = json.dumps(header).encode()
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size + 200_000)
    before = resident()
    data = open_data(tmp_path, max_examples=20, batch_size=4)
    assert sum(len(y) for _, y in data) == 20
    assert resident() - before < 50e6


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_names_that_are_not_there(tmp_path):
    save(tmp_path, x=torch.ones(2, 1), y=torch.ones(2))
    with pytest.raises(UsageError, match=r"data\.inputs: found no array 'z' in data\.safetensors, which has: x, y"):
        open_data(tmp_path, inputs="z")
    save(tmp_path, x=torch.ones(2, 1), y=torch.ones(3))
    assert "several lengths (inputs 2, targets 3)" in refusal(tmp_path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: raw(folder, b""),
        lambda folder: raw(folder, b"{}", length=2**62),
        lambda folder: raw(folder, b"{}", length=10**8),
        lambda folder: raw(folder, b'{"x": '),
        lambda folder: raw(folder, {"x": ENTRY, "y": ENTRY}, bytes(4)),
        lambda folder: raw(folder, {"x": {**ENTRY, "shape": [2**40, 2**40]}}, bytes(8)),
        lambda folder: raw(folder, {"x": {**ENTRY, "data_offsets": [0, 2**50]}}, bytes(8)),
        lambda folder: raw(folder, {"x": {**ENTRY, "dtype": "Q99"}}, bytes(8)),
        lambda folder: (folder / "data.safetensors").write_bytes(b""),
        lambda folder: (folder / "data.safetensors").write_bytes(b"\x89PNG" * 99),
    ],
)
def test_headers_that_lie(tmp_path, write):
    write(tmp_path)
    assert "data.safetensors is not a readable safetensors file of" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 50, 0.5, -1])
def test_cut_short(tmp_path, kept):
    save(tmp_path, x=torch.ones(20, 1), y=torch.ones(20))
    content = (tmp_path / "data.safetensors").read_bytes()
    cut = content[: int(kept * len(content)) if isinstance(kept, float) else kept]
    (tmp_path / "data.safetensors").write_bytes(cut)
    assert "is not a readable safetensors file" in refusal(tmp_path)
