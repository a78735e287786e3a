"""Parquet: columns of numbers, lists and words; row groups read when they are needed, and one at a time."""

from __future__ import annotations

import decimal

import numpy as np
import pytest
import torch

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import load_data, parquet, room
from hessdiag.loading.extras import MissingExtraError
from hessdiag.spec.data import ParquetData

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def write(folder, name="data.parquet", group=None, **columns):
    (folder / name).parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name, row_group_size=group)


def open_data(folder, path="data.parquet", **options):
    return load_data(ParquetData(**{"format": "parquet", "path": path, "targets": "y", **options}), folder.joinpath)


def read(folder, path="data.parquet", **options):
    batches = list(open_data(folder, path, **options))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def refusal(folder, kind=DataError, path="data.parquet", **options):
    with pytest.raises(kind) as caught:
        list(open_data(folder, path, **options))
    return str(caught.value)


def numbered(folder, rows=100, group=7, **options):
    a = np.arange(rows, dtype="f8")
    write(folder, group=group, a=a, b=a / 3, y=np.arange(rows) % 5, **options)


def test_columns_side_by_side(tmp_path):
    numbered(tmp_path)
    inputs, targets = read(tmp_path, batch_size=9)
    assert inputs.tolist() == [[n, n / 3] for n in range(100)]
    assert targets.dtype is torch.int64
    assert targets.tolist() == [n % 5 for n in range(100)]
    assert read(tmp_path, inputs="b")[0].tolist() == [[n / 3] for n in range(100)]
    assert read(tmp_path, inputs=["b", "a"])[0][6].tolist() == [2, 6]


def test_columns_by_argument_and_no_targets(tmp_path):
    numbered(tmp_path)
    batches = list(open_data(tmp_path, inputs={"p": ["a"], "q": ["b", "a"]}, targets=None, batch_size=30))
    assert [set(inputs) for inputs, _ in batches] == [{"p", "q"}] * 4
    assert torch.cat([inputs["q"] for inputs, _ in batches])[:, 1].tolist() == list(range(100))
    assert {targets for _, targets in batches} == {None}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("group", [1, 7, 1000])
def test_a_subset_is_that_of_every_format(tmp_path, group, seed):
    numbered(tmp_path, group=group)
    inputs, _ = read(tmp_path, max_examples=23, seed=seed, batch_size=4)
    assert inputs[:, 0].tolist() == np.sort(np.random.default_rng(seed).choice(100, 23, replace=False)).tolist()


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path):
    for name, first in (("part-1", 40), ("part-0", 0), ("part-2", 70)):
        rows = np.arange(first, {0: 40, 40: 70, 70: 71}[first], dtype="f8")
        write(tmp_path, f"data/{name}.parquet", group=11, x=rows, y=rows)
    write(tmp_path, "data/part-3.parquet", x=np.zeros(0), y=np.zeros(0))
    for name in ("_SUCCESS", "._part-0.parquet"):  # Spark's, and a Mac's
        (tmp_path / "data" / name).touch()
    inputs, _ = read(tmp_path, "data", batch_size=16)
    assert inputs[:, 0].tolist() == list(range(71))
    inputs, _ = read(tmp_path, "data", max_examples=30, batch_size=16)
    assert inputs[:, 0].tolist() == np.sort(np.random.default_rng(0).choice(71, 30, replace=False)).tolist()


def test_a_folder_of_files_that_do_not_go_together(tmp_path):
    write(tmp_path, "data/a.parquet", x=[1.0], y=[1])
    write(tmp_path, "data/b.parquet", x=[1.0], y=["cat"])
    assert "column 'y' of data/b.parquet is string, but of data/a.parquet int64" in refusal(tmp_path, path="data")
    write(tmp_path, "data/b.parquet", y=[1])
    assert "column 'x' of data/b.parquet is no such column" in refusal(tmp_path, path="data")
    (tmp_path / "empty").mkdir()
    assert "empty holds no .parquet files" in refusal(tmp_path, path="empty")


def test_only_the_groups_and_columns_that_are_needed_are_read_and_each_once(tmp_path, monkeypatch):
    numbered(tmp_path, unused=["text"] * 100)
    seen = []

    class Watched(pq.ParquetFile):
        def read_row_group(self, number, columns, **options):
            seen.append((number, tuple(columns)))
            return super().read_row_group(number, columns, **options)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    data = open_data(tmp_path, inputs="a", batch_size=3)
    assert seen == []
    for _ in range(2):
        seen.clear()
        assert sum(len(y) for _, y in data) == 100
        assert seen == [(number, ("a", "y")) for number in range(15)]
    seen.clear()
    inputs, _ = data.examples.batch(np.array([8, 9, 50, 99]))
    assert inputs[:, 0].tolist() == [8, 9, 50, 99]
    assert [number for number, _ in seen] == [1, 7, 14]


def test_a_table_larger_than_what_is_held_of_it(tmp_path):
    rows, group = 400_000, 10_000  # 32 MB of numbers, 0.8 MB in a group
    random = np.random.default_rng(0)
    write(tmp_path, group=group, **{f"x{n}": random.normal(size=rows) for n in range(9)}, y=np.arange(rows))
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    data, most, seen = open_data(tmp_path, batch_size=1000), 0, 0
    for inputs, targets in data:
        assert targets[0] == seen
        seen += len(inputs)
        most = max(most, pool.bytes_allocated() - before)
        held = data.examples._held[1]
        assert held.inputs[None].shape == (group, 9)
        assert inputs.untyped_storage().nbytes() == 1000 * 9 * 8  # a view would keep the whole group
    assert seen == rows
    assert most < 5e6


@pytest.mark.parametrize(
    ("kinds", "into"),
    [
        (["float32", "float32"], torch.float32),
        (["float16", "int8"], torch.float32),
        (["bool_", "uint16"], torch.float32),
        (["float32", "int32"], torch.float64),
        (["float32", "float64"], torch.float64),
        (["int64"], torch.float64),
        (["uint64"], torch.float64),
    ],
)
def test_features_are_floating_point_that_holds_them(tmp_path, kinds, into):
    columns = {f"x{n}": pa.array([0, 1, 1]).cast(getattr(pa, kind)()) for n, kind in enumerate(kinds)}
    write(tmp_path, **columns, y=[0, 1, 2])
    inputs, _ = read(tmp_path)
    assert inputs.dtype is into
    assert inputs.tolist() == [[value] * len(kinds) for value in (0, 1, 1)]


@pytest.mark.parametrize(
    ("values", "kind", "into"),
    [
        ([2, 0, 1], pa.int8(), torch.int64),
        ([2, 0, 1], pa.uint32(), torch.int64),
        ([2, 0, 1], pa.uint64(), torch.int64),
        ([True, False, True], pa.bool_(), torch.int64),
        ([0.5, 2.0, 1.0], pa.float32(), torch.float32),
        ([0.5, 2.0, 1.0], pa.float64(), torch.float64),
        ([2, 0, 1], pa.dictionary(pa.int8(), pa.int64()), torch.int64),
    ],
)
def test_targets_of_numbers(tmp_path, values, kind, into):
    array = pa.array(values, kind) if not pa.types.is_dictionary(kind) else pa.array(values).dictionary_encode()
    write(tmp_path, x=[1.0, 2.0, 3.0], y=array)
    _, targets = read(tmp_path)
    assert targets.dtype is into
    assert targets.tolist() == values


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_targets_of_words(tmp_path, kind):
    words = pa.array(["cat", "dog", "cat", "owl"])
    words = words.dictionary_encode() if kind == "dictionary" else words.cast(getattr(pa, kind)())
    write(tmp_path, group=3, x=np.arange(4.0), y=words)
    assert read(tmp_path, classes=["owl", "dog", "cat"])[1].tolist() == [2, 1, 2, 0]
    assert refusal(tmp_path, UsageError) == (
        "data.classes: missing, but column 'y' of data.parquet holds words (cat, dog, owl): "
        "list them in the order of their class numbers, as classes: [cat, dog, owl]"
    )
    message = refusal(tmp_path, UsageError, classes=["cat", "dog"])
    assert message == "data.classes: found 'owl' in column 'y', row 4 of data.parquet, expected one of cat, dog"


def test_classes_of_numbers(tmp_path):
    write(tmp_path, x=np.arange(3.0), y=[3, 7, 3])
    assert read(tmp_path, classes=["3", "7"])[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("fixed", [True, False])
def test_lists_of_one_length_are_vectors(tmp_path, fixed):
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    lists = pa.array(rows, pa.list_(pa.float32(), 2) if fixed else pa.list_(pa.float64()))
    write(tmp_path, group=2, a=[7.0, 8.0, 9.0], v=lists, y=[0, 1, 2])
    assert read(tmp_path, inputs="v")[0].tolist() == rows
    assert read(tmp_path)[0].tolist() == [[7, 1, 2], [8, 3, 4], [9, 5, 6]]


def test_lists_of_several_lengths(tmp_path):
    write(tmp_path, v=[[1.0], [1.0, 2.0]], y=[0, 1])
    assert "found lists of 1 to 2 numbers in column 'v' of data.parquet, expected one length" in refusal(tmp_path)
    write(tmp_path, v=[[1.0, 2.0], [1.0, None]], y=[0, 1])
    assert "found no value (null) in column 'v', row 2 of data.parquet" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (
            [1.0, 2.0, 3.0, None, 5.0],
            "found no value (null) in column 'COLUMN', row 4 of data.parquet, expected one in",
        ),
        ([1.0, 2.0, 3.0, np.inf, 5.0], "found inf in column 'COLUMN', row 4 of data.parquet, expected a finite number"),
    ],
)
@pytest.mark.parametrize("name", ["x", "y"])
def test_values_that_are_missing_have_their_row(tmp_path, name, column, words):
    write(tmp_path, group=3, **{"x": np.arange(5.0), "y": np.arange(5.0), name: column})
    assert words.replace("COLUMN", name) in refusal(tmp_path)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([decimal.Decimal("1.50")], "decimal128(3, 2)"),
        (np.array(["2020-01-01"], "M8[D]"), "date32[day]"),
        (["text"], "string"),
        ([[["deep"]]], "list<"),
        ([{"a": 1}], "struct<a: int64>"),
        ([None], "null"),
    ],
)
def test_columns_that_are_no_numbers(tmp_path, column, kind):
    write(tmp_path, x=column, y=[1])
    message = refusal(tmp_path, UsageError, inputs="x")
    assert message.startswith(f"data.inputs: column 'x' of data.parquet is {kind}")
    assert "data.inputs: missing, and column 'x' of data.parquet is" in refusal(tmp_path, UsageError)
    if kind != "string":
        assert f"data.targets: column 'x' of data.parquet is {kind}" in refusal(tmp_path, UsageError, targets="x")


def test_columns_that_are_not_there(tmp_path):
    numbered(tmp_path)
    message = refusal(tmp_path, UsageError, targets="label")
    assert message == "data.targets: found no column 'label' in data.parquet, which has: a, b, y"
    write(tmp_path, x=[1.0], y=[1], __index_level_0__=[5])
    assert "a column '__index_level_0__', likely an index" in refusal(tmp_path, UsageError)
    assert read(tmp_path, inputs="x")[0].tolist() == [[1]]


def test_a_name_with_a_point(tmp_path):
    write(tmp_path, **{"a.b": [1.0, 2.0], "a": [3.0, 4.0], "y": [0, 1]})
    assert read(tmp_path, inputs=["a.b", "a"])[0].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_cut_short(tmp_path, kept):
    numbered(tmp_path)
    content = (tmp_path / "data.parquet").read_bytes()
    cut = content[: int(kept * len(content)) if isinstance(kept, float) else kept]
    (tmp_path / "data.parquet").write_bytes(cut)
    assert "data.parquet is not a readable parquet file" in refusal(tmp_path)


def test_damaged_pages(tmp_path):
    numbered(tmp_path, rows=1000, group=1000)
    content = bytearray((tmp_path / "data.parquet").read_bytes())
    content[4:200] = bytes(range(196))
    (tmp_path / "data.parquet").write_bytes(content)
    assert "data.parquet is not a readable parquet file" in refusal(tmp_path)


def test_a_group_beyond_the_free_memory(tmp_path, monkeypatch):
    numbered(tmp_path, group=50)
    monkeypatch.setattr(room, "available_memory", lambda device: 1000)
    message = refusal(tmp_path)
    assert "data.path: row group 0 of data.parquet takes" in message
    assert "write the file with smaller row groups" in message


def test_without_pyarrow(tmp_path, monkeypatch):
    def missing(module, purpose):
        raise MissingExtraError(f"{purpose}: needs {module}")

    numbered(tmp_path)
    monkeypatch.setattr(parquet, "import_extra", missing)
    assert refusal(tmp_path, MissingExtraError) == "data.format: parquet: needs pyarrow.parquet"
