"""The same examples in several formats are the same problem; the spec says of each what it takes."""

from __future__ import annotations

import csv
import json
import shutil
import struct
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

import hessdiag
from hessdiag.errors import SpecError
from hessdiag.loading.datasets import load_data
from hessdiag.problem.batches import Fingerprint, read_batch
from hessdiag.spec import json_schema, load_spec
from hessdiag.spec.compose import compose

COLUMNS = ["a", "b", "c", "d"]


def write_npz(folder, x, y):
    np.savez(folder / "data.npz", x=x, y=y)
    return "{format: npz, path: data.npz, inputs: x, targets: y}"


def write_npy(folder, x, y):
    (folder / "arrays").mkdir(exist_ok=True)
    np.save(folder / "arrays" / "x.npy", x)
    np.save(folder / "arrays" / "y.npy", y)
    return "{format: npz, path: arrays, inputs: x, targets: y}"


def write_safetensors(folder, x, y):
    save_file({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "data.safetensors")
    return "{format: safetensors, path: data.safetensors, inputs: x, targets: y}"


def write_csv(folder, x, y):
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*COLUMNS, "y"], *([*row, label] for row, label in zip(x.tolist(), y, strict=True))]
        )
    return "{format: csv, path: data.csv, targets: y}"


def write_parquet(folder, x, y):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = pa.table({**dict(zip(COLUMNS, x.T, strict=True)), "y": y})
    pq.write_table(table, folder / "data.parquet", row_group_size=8)
    return "{format: parquet, path: data.parquet, targets: y}"


def write_idx(folder, x, y):
    (folder / "idx").mkdir(exist_ok=True)
    for name, code, array in (("x", 0x0E, x.astype(">f8")), ("y", 0x0B, y.astype(">i2"))):
        head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / "idx" / name).write_bytes(head + array.tobytes())
    return "{format: idx, path: idx, inputs: x, targets: y}"


def write_jsonl(folder, x, y):
    lines = [json.dumps({"x": row, "y": label}) for row, label in zip(x.tolist(), y.tolist(), strict=True)]
    (folder / "data.jsonl").write_text("\n".join(lines))
    return "{format: jsonl, path: data.jsonl, inputs: x, targets: y}"


def write_hf(folder, x, y):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra: hf)")
    datasets.disable_progress_bars()
    shutil.rmtree(folder / "hf", ignore_errors=True)
    datasets.Dataset.from_dict({"x": x, "y": y}).save_to_disk(folder / "hf")
    return "{format: hf, path: hf, inputs: x, targets: y}"


WRITERS = {
    "npz": write_npz,
    "npy": write_npy,
    "safetensors": write_safetensors,
    "csv": write_csv,
    "parquet": write_parquet,
    "idx": write_idx,
    "jsonl": write_jsonl,
    "hf": write_hf,
}


def problem(folder, name):
    arrays = tiny.arrays()
    data = WRITERS[name](folder, arrays["x"].astype("f8"), arrays["y"])
    return tiny.load(folder / "audit.yaml", f"data={data}", "data.batch_size=12", dtype="float64")


@pytest.mark.parametrize("name", WRITERS)
def test_one_dataset_in_every_format(tmp_path, name):
    tiny.write(tmp_path)
    reference, found = problem(tmp_path, "npz"), problem(tmp_path, name)
    assert found.loss_value == reference.loss_value
    assert found.data_info == reference.data_info
    vector = torch.randn(tiny.PARAMETERS, dtype=torch.float64)
    products = [hessdiag.HessianOperator(each).matvec(vector) for each in (found, reference)]
    assert torch.equal(*products)


@pytest.mark.parametrize("name", WRITERS)
def test_the_fingerprint_is_that_of_the_examples_in_their_order(tmp_path, name):
    tiny.write(tmp_path)
    arrays = tiny.arrays()
    x, y = arrays["x"].astype("f8"), arrays["y"]

    def printed(*overrides, x=x, y=y):
        data = f"data={WRITERS[name](tmp_path, x, y)}"
        spec = load_spec(tmp_path / "audit.yaml", (data, "data.batch_size=12", *overrides))
        fingerprint = Fingerprint()
        for index, raw in enumerate(load_data(spec.data, spec.resolve)):
            fingerprint.add(read_batch(raw, index))
        return fingerprint.digest()

    original = printed()
    assert printed("data.batch_size=7") == original
    assert printed("data.max_examples=20") == printed("data.max_examples=20", "data.batch_size=3") != original
    assert printed("data.max_examples=20", "data.seed=1") != printed("data.max_examples=20")
    nudged, swapped, other = x.copy(), x.copy(), y.copy()
    nudged[17, 2] = np.nextafter(nudged[17, 2], 1)
    swapped[[3, 4]] = swapped[[4, 3]]
    other[5] = (other[5] + 1) % 3
    assert len({original, printed(x=nudged), printed(x=swapped), printed(y=other), printed(x=x[::-1].copy())}) == 5
    assert printed() == original == problem(tmp_path, name).data_info.fingerprint


MODEL = "model: {class_path: model.py:build}\n"
GOOD = [
    "{format: npz, path: data, inputs: x, targets: y}",
    "{format: safetensors, path: data.csv, inputs: {a: x}, targets: y, max_examples: 3}",
    "{format: idx, path: data, split: train, mean: [0.1307], std: [0.3081]}",
    "{format: idx, path: data, inputs: a, targets: b}",
    "{format: cifar, path: data, labels: coarse, mean: [0.5, 0.5, 0.5]}",
    "{format: cifar, path: data.csv, split: train}",
    "{format: csv, path: data.csv, targets: y}",
    "{format: csv, path: data.csv, inputs: x, targets: y, delimiter: ';'}",
    '{format: csv, path: data.csv, inputs: [x], targets: y, classes: [a, b], delimiter: "\\t"}',
    "{format: parquet, path: data.csv, inputs: {a: [x, z]}, targets: y, seed: 2}",
    "{format: parquet, path: data, targets: y, classes: ['0', '1']}",
    "{format: jsonl, path: data.csv, inputs: {a: x}, targets: y, classes: [a, b]}",
    "{format: hf, path: data, inputs: [x, z], targets: y, split: train}",
    "{format: sklearn, name: iris, standardize: true}",
]
BAD = [
    "{format: npz, path: data, inputs: x, targets: y, split: train}",
    "{format: safetensors, path: data.csv, targets: y}",
    "{format: idx, path: data, split: validation}",
    "{format: idx, path: data, std: [0]}",
    "{format: idx, path: data, mean: 0.5}",
    "{format: cifar, path: data, labels: both}",
    "{format: csv, path: data.csv, targets: [y]}",
    "{format: csv, path: data.csv, targets: y, delimiter: ';;'}",
    "{format: csv, path: data.csv, targets: y, delimiter: ''}",
    "{format: csv, path: data.csv, targets: y, delimiter: '\"'}",
    "{format: csv, path: data.csv, targets: y, inputs: {a: x}}",
    "{format: csv, path: data.csv, targets: y, classes: [1, 2]}",
    "{format: csv, path: data.csv, targets: y, classes: [a, a]}",
    "{format: parquet, path: data, targets: y, inputs: []}",
    "{format: parquet, path: data, targets: y, delimiter: ','}",
    "{format: jsonl, path: data.csv, inputs: x, targets: y, classes: [a, a]}",
    "{format: jsonl, path: data.csv, inputs: x, targets: y, split: train}",
    "{format: hf, path: data, inputs: x, targets: y, delimiter: ','}",
    "{format: sklearn, name: mnist}",
    "{format: sklearn, name: iris, standardize: 1}",
    "{format: sklearn}",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("model.py", "data.csv"):
        (tmp_path / name).touch()
    return tmp_path


def load(folder, data) -> Any:
    (folder / "audit.yaml").write_text(f"{MODEL}data: {data}\n")
    return load_spec(folder / "audit.yaml", ())


def plain(data):
    root, faults = compose(f"{MODEL}data: {data}\n", "")
    assert not faults
    return root.plain()


@pytest.mark.parametrize("data", GOOD)
def test_good_keys(folder, data):
    load(folder, data)
    jsonschema.Draft202012Validator(json_schema()).validate(plain(data))


@pytest.mark.parametrize("data", BAD)
def test_bad_keys(folder, data):
    with pytest.raises(SpecError, match=r"audit\.yaml:2:\d+: data"):
        load(folder, data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(plain(data))
