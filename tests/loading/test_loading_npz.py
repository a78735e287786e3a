"""Arrays of an archive become batches; a subset is the same for everyone."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import load_data
from hessdiag.spec.data import NpzData


def open_data(folder, inputs="x", targets="y", **options):
    spec = NpzData(format="npz", path="data.npz", inputs=inputs, targets=targets, **options)
    return load_data(spec, lambda name: folder / name)


def numbered(folder, count=30, **more):
    np.savez(folder / "data.npz", x=np.arange(count, dtype="f4")[:, None], y=np.arange(count), **more)


def message(folder, **options):
    with pytest.raises(DataError) as caught:
        list(open_data(folder, **options))
    return str(caught.value)


def test_batches_in_order_the_last_one_smaller_and_again(tmp_path):
    numbered(tmp_path)
    data = open_data(tmp_path, batch_size=12)
    for _ in range(2):
        batches = list(data)
        assert [len(x) for x, _ in batches] == [12, 12, 6]
        assert torch.cat([y for _, y in batches]).tolist() == list(range(30))
        assert all(torch.equal(x[:, 0].long(), y) for x, y in batches)


def test_inputs_by_name_by_list_and_by_mapping(tmp_path):
    numbered(tmp_path, mask=np.ones((30, 2)))
    tensor, _ = next(iter(open_data(tmp_path, "x", batch_size=4)))
    listed, _ = next(iter(open_data(tmp_path, ["x", "mask"], batch_size=4)))
    mapped, _ = next(iter(open_data(tmp_path, {"ids": "x", "attention": "mask"}, batch_size=4)))
    assert tensor.shape == (4, 1)
    assert isinstance(listed, tuple)
    assert [item.shape for item in listed] == [(4, 1), (4, 2)]
    assert {name: item.shape for name, item in mapped.items()} == {"ids": (4, 1), "attention": (4, 2)}
    assert torch.equal(mapped["ids"], tensor)


def test_no_targets_where_the_model_has_its_own_loss(tmp_path):
    numbered(tmp_path)
    assert [targets for _, targets in open_data(tmp_path, targets=None)] == [None]


def chosen(folder, **options):
    return torch.cat([y for _, y in open_data(folder, **options)]).tolist()


def test_a_subset_is_random_in_order_and_reproducible(tmp_path):
    numbered(tmp_path)
    rows = chosen(tmp_path, max_examples=10)
    assert len(set(rows)) == 10
    assert rows == sorted(rows)
    assert rows != list(range(10))
    assert chosen(tmp_path, max_examples=10, batch_size=3) == rows
    assert chosen(tmp_path, max_examples=10, seed=1) != rows
    assert chosen(tmp_path, max_examples=30) == chosen(tmp_path, max_examples=99) == list(range(30))


def test_a_subset_keeps_inputs_and_targets_together(tmp_path):
    numbered(tmp_path)
    for x, y in open_data(tmp_path, max_examples=10, batch_size=4):
        assert torch.equal(x[:, 0].long(), y)


def test_the_seed_of_probes_never_changes_the_subset(tmp_path):
    spec = tiny.write(tmp_path)
    problems = [tiny.load(spec, "data.max_examples=20", f"data.seed={seed}") for seed in (0, 0, 1)]
    prints = [problem.data_info.fingerprint for problem in problems]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "f2"])
def test_reals_of_any_width_and_byte_order(tmp_path, dtype):
    np.savez(tmp_path / "data.npz", x=np.array([[1.5], [-2.0]], dtype), y=np.array([0, 1]))
    (inputs, _), *_ = open_data(tmp_path)
    assert inputs.tolist() == [[1.5], [-2.0]]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", ">i4", "i8", ">u2"])
def test_class_numbers_of_any_width(tmp_path, dtype):
    spec = tiny.write(tmp_path)
    expected = tiny.load(spec).loss_value
    tiny.write(tmp_path, y=tiny.arrays()["y"].astype(dtype))
    assert tiny.load(spec).loss_value == expected


def test_truth_values_are_class_numbers(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones((2, 1)), y=np.array([True, False]))
    ((_, targets),) = open_data(tmp_path)
    assert (targets.tolist(), targets.dtype) == ([1, 0], torch.int64)


def test_faults_are_told(tmp_path):
    numbered(tmp_path)
    with pytest.raises(UsageError, match=r"data\.inputs: found no array 'z' in data\.npz, which has: x, y"):
        open_data(tmp_path, inputs="z")
    with pytest.raises(UsageError, match=r"data\.targets: found no array 'labels'"):
        open_data(tmp_path, targets="labels")
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 1)), y=np.zeros(4))
    assert "several lengths (inputs 3, targets 4)" in message(tmp_path)
    assert "inputs[0] 3, inputs[1] 4" in message(tmp_path, inputs=["x", "y"], targets=None)
    assert "inputs.a 3, inputs.b 4" in message(tmp_path, inputs={"a": "x", "b": "y"}, targets=None)
    np.savez(tmp_path / "data.npz", x=np.zeros((0, 1)), y=np.zeros(0))
    assert "data.npz holds no examples, expected at least one" in message(tmp_path)
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 1)), y=np.float32(3))
    assert "data.targets: found a single number" in message(tmp_path)
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 1)), y=np.array(["a", "b", "c"]))
    assert "array 'y' in data.npz has type <U1, expected numbers" in message(tmp_path)


def test_objects_are_not_unpickled(tmp_path):
    numbered(tmp_path, words=np.array([{}] * 30))
    assert "array 'words' in data.npz holds Python objects" in message(tmp_path, inputs="words")
    assert len(list(open_data(tmp_path))) == 1  # the others are fine


@pytest.mark.parametrize("kept", [0, 3, 30, 0.5, -1])
def test_cut_short(tmp_path, kept):
    numbered(tmp_path)
    content = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "data.npz is not a readable .npz archive" in message(tmp_path)


def test_one_bit_flipped(tmp_path):
    numbered(tmp_path)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[content.index(np.arange(30, dtype="f4").tobytes())] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    assert "CRC" in message(tmp_path)


def test_a_bare_array(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, np.zeros((3, 1)))
    assert "one bare array (.npy), expected an .npz archive" in message(tmp_path)
