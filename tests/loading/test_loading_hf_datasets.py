"""Hugging Face datasets on disk: saved ones, and files of rows, by split; nothing of the hub, nothing left behind."""

from __future__ import annotations

import gc
import json
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
import texts
import tiny
import torch

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import load_data, room
from hessdiag.spec.data import HfData

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")

ROWS = 30
WORDS = ["no", "yes", "maybe"]
FEATURES = datasets.Features(
    {
        "x": datasets.List(datasets.Value("float32"), length=2),
        "label": datasets.ClassLabel(names=WORDS),
        "word": datasets.Value("string"),
        "matrix": datasets.Array2D((2, 3), "int16"),
        "number": datasets.Value("int32"),
    }
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No network, and a place of its own for temporary files."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def table(start=0, count=ROWS):
    rows = range(start, start + count)
    return datasets.Dataset.from_dict(
        {
            "x": [[i, i / 2] for i in rows],
            "label": [i % 3 for i in rows],
            "word": [WORDS[i % 3] for i in rows],
            "matrix": [np.full((2, 3), i) for i in rows],
            "number": list(rows),
        },
        features=FEATURES,
    )


def simple(start=0, count=ROWS):
    return table(start, count).remove_columns(["matrix"])


def open_data(folder, path="data", inputs="x", targets="number", **options):
    spec = HfData(format="hf", path=path, inputs=inputs, targets=targets, **options)
    return load_data(spec, lambda name: folder / name)


def numbers(data):
    return torch.cat([targets for _, targets in data]).tolist()


def test_a_saved_dataset(tmp_path):
    table().save_to_disk(tmp_path / "data")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("data/*"))
    data = open_data(tmp_path, batch_size=12)
    for _ in range(2):
        batches = list(data)
        assert [len(y) for _, y in batches] == [12, 12, 6]
        assert numbers(batches) == list(range(ROWS))
        assert torch.equal(torch.cat([x for x, _ in batches])[:, 1] * 2, torch.arange(30.0, dtype=torch.float64))
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("data/*")) == before


def test_columns_of_several_kinds(tmp_path):
    table().save_to_disk(tmp_path / "data")
    ((x, label),) = open_data(tmp_path, inputs={"a": "x", "m": "matrix"}, targets="label")
    assert {name: (tuple(item.shape), item.dtype) for name, item in x.items()} == {
        "a": ((30, 2), torch.float64),
        "m": ((30, 2, 3), torch.int64),
    }
    assert label.tolist() == [i % 3 for i in range(ROWS)]
    ((x, label),) = open_data(tmp_path, inputs=["x", "number"], targets="label", classes=["maybe", "no", "yes"])
    assert [item.shape for item in x] == [(30, 2), (30,)]
    assert label.tolist() == [(i + 1) % 3 for i in range(ROWS)]  # by name, in the spec's order
    ((_, word),) = open_data(tmp_path, targets="word", classes=WORDS)
    assert word.tolist() == [i % 3 for i in range(ROWS)]


def test_splits(tmp_path):
    datasets.DatasetDict({"train": table(), "validation": table(50, 4)}).save_to_disk(tmp_path / "data")
    assert numbers(open_data(tmp_path, split="validation")) == [50, 51, 52, 53]
    with pytest.raises(
        UsageError, match=r"data\.split: missing; expected one of the splits of data: train, validation"
    ):
        open_data(tmp_path)
    with pytest.raises(UsageError, match=r"data\.split: found no split 'test' in data, which has: train, validation"):
        open_data(tmp_path, split="test")
    table().save_to_disk(tmp_path / "one")
    with pytest.raises(UsageError, match=r"which has no named splits: leave data\.split out"):
        open_data(tmp_path, "one", split="test")
    datasets.DatasetDict({"test": table()}).save_to_disk(tmp_path / "only")
    assert len(numbers(open_data(tmp_path, "only"))) == ROWS


def write(kind, data, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "arrow":
        data.save_to_disk(path.parent / "saved")
        (path.parent / "saved" / "data-00000-of-00001.arrow").rename(path)
    elif kind == "jsonl":
        data.to_json(path)
    else:
        getattr(data, f"to_{kind}")(path)


@pytest.mark.parametrize("kind", ["parquet", "json", "jsonl", "csv", "arrow"])
def test_one_file(tmp_path, kind):
    write(kind, simple(), tmp_path / "files" / f"some [rows]*{{1}}.{kind}")
    listing = sorted(os.listdir(tmp_path / "files"))
    data = open_data(tmp_path, f"files/some [rows]*{{1}}.{kind}", inputs="label", batch_size=7)
    assert numbers(data) == list(range(ROWS))
    assert torch.cat([x for x, _ in data]).tolist() == [i % 3 for i in range(ROWS)]
    assert sorted(os.listdir(tmp_path / "files")) == listing
    chosen = numbers(open_data(tmp_path, f"files/some [rows]*{{1}}.{kind}", inputs="label", max_examples=9))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 9


def test_the_copy_as_arrow_goes_with_the_data(tmp_path):
    write("parquet", simple(), tmp_path / "data.parquet")
    data = open_data(tmp_path, "data.parquet")
    (scratch,) = (tmp_path / "scratch").iterdir()
    assert list(scratch.rglob("*.arrow"))
    del data
    assert not list((tmp_path / "scratch").iterdir())


LAYOUTS = {
    "shards": {
        "train-00000-of-00002.parquet": 0,
        "train-00001-of-00002.parquet": 30,
        "test-00000-of-00001.parquet": 90,
    },
    "words": {"mrpc_train.csv": 0, "mrpc-dev.csv": 90, "README.md": None, "other.csv": 7},
    "folders": {"train/0000.parquet": 0, "validation/0000.parquet": 90},
    "a repository": {"data/train-00000-of-00001.parquet": 0, "data/validation-00000-of-00001.parquet": 90},
    "the library's cache": {"glue-train.arrow": 0, "glue-validation.arrow": 90, "dataset_info.json": None},
    "names of its own": {"clean-00000-of-00001.parquet": 0, "noisy-00000-of-00001.parquet": 90},
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_files_of_several_splits(tmp_path, files):
    for name, start in files.items():
        path = tmp_path / "data" / name
        if start is None:
            path.write_text("{}")
        else:
            write(path.suffix[1:], simple(start), path)
    with pytest.raises(UsageError, match="missing; expected one of the splits of data: ") as caught:
        open_data(tmp_path)
    splits = str(caught.value).rpartition(": ")[2].split(", ")
    first = [numbers(open_data(tmp_path, inputs="label", split=split))[0] for split in splits]
    assert sorted(first) == [0, 90]
    if "mrpc-dev.csv" in files:
        assert splits == ["validation", "train"]
        assert numbers(open_data(tmp_path, inputs="label", split="dev"))[0] == 90
    if len(files) == 3 and "train-00000-of-00002.parquet" in files:
        assert numbers(open_data(tmp_path, split="train")) == list(range(60))


def test_files_of_no_split_are_one_in_the_order_of_their_names(tmp_path):
    for name, start in {"b.csv": 30, "a.csv": 0}.items():
        write("csv", simple(start), tmp_path / "data" / name)
    assert numbers(open_data(tmp_path, inputs="label")) == list(range(60))


def test_folders_that_are_no_dataset(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data\.path: found no dataset in data, expected what save_to_disk writes, or"):
        open_data(tmp_path)
    write("csv", simple(), tmp_path / "data" / "a.csv")
    write("parquet", simple(), tmp_path / "data" / "b.parquet")
    with pytest.raises(DataError, match=r"found files of several kinds \(csv, parquet\) in data, expected one"):
        open_data(tmp_path)
    for name in ("cola", "mrpc"):
        write("csv", simple(), tmp_path / "glue" / name / "train.csv")
    with pytest.raises(DataError, match=r"several folders \(cola, mrpc\) in glue for the split train, expected one"):
        open_data(tmp_path, "glue")
    assert numbers(open_data(tmp_path, "glue/mrpc", inputs="label"))[0] == 0
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(DataError, match=r"found data\.txt, expected a file whose name ends in \.parquet, \.json"):
        open_data(tmp_path, "data.txt")


def test_the_report_is_that_of_the_same_arrays(tmp_path):
    spec = tiny.write(tmp_path)
    x, y = tiny.arrays().values()
    datasets.Dataset.from_dict({"x": x, "y": y}).save_to_disk(tmp_path / "saved")
    found = tiny.load(spec, "data.format=hf", "data.path=saved")
    assert found.loss_value == tiny.load(spec).loss_value
    again = tiny.load(spec, "data.format=hf", "data.path=saved", "data.batch_size=7")
    assert found.data_info.fingerprint == again.data_info.fingerprint


def test_pairs_of_sentences(tmp_path):
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    texts.save_bert_tokenizer(tmp_path / "bert")
    mrpc = datasets.Dataset.from_list(texts.pairs())
    mrpc = mrpc.cast_column("label", datasets.ClassLabel(names=["not_equivalent", "equivalent"]))
    datasets.DatasetDict({"train": mrpc, "validation": mrpc.select([0, 1, 2])}).save_to_disk(tmp_path / "mrpc")
    options = {"inputs": ["sentence1", "sentence2"], "targets": "label", "tokenizer": "bert"}
    ((inputs, labels),) = open_data(tmp_path, "mrpc", split="validation", **options)
    assert inputs["token_type_ids"].max() == 1
    assert labels.tolist() == [1, 0, 0]
    null = datasets.Dataset.from_list([*texts.pairs(), {"sentence1": None, "sentence2": "a", "label": 0}])
    null.save_to_disk(tmp_path / "null")
    with pytest.raises(DataError, match=r"^null, row 7 \(from 0\): field 'sentence1' is null, expected text"):
        list(open_data(tmp_path, "null", **options))


def test_a_tokenised_dataset(tmp_path):
    rows = [
        {"input_ids": list(range(1, n)), "attention_mask": [1] * (n - 1), "labels": [n] * (n - 1)} for n in (4, 2, 6)
    ]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "data")
    both = {name: name for name in ("input_ids", "attention_mask")}
    ((inputs, labels),) = open_data(tmp_path, inputs=both, targets="labels")
    assert inputs["input_ids"].tolist() == [[1, 2, 3, 0, 0], [1, 0, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert inputs["attention_mask"].sum(1).tolist() == [3, 1, 5]
    assert labels[:2].tolist() == [[4, 4, 4, -100, -100], [2, -100, -100, -100, -100]]


def test_columns_that_are_not_there_or_hold_something_else(tmp_path):
    table().save_to_disk(tmp_path / "data")
    with pytest.raises(UsageError, match=r"data\.inputs: found no field 'text' in data, which has: x, label, word, "):
        open_data(tmp_path, inputs="text")
    with pytest.raises(DataError, match=r"data, row 0 \(from 0\): field 'word' is the text 'no', expected a number"):
        open_data(tmp_path, inputs="word")
    pictures = datasets.Dataset.from_dict({"x": [b"\x89PNG"] * 3, "number": [1, 2, 3]})
    pictures.cast_column("x", datasets.Image(decode=False)).save_to_disk(tmp_path / "pictures")
    with pytest.raises(UsageError, match=r"data\.inputs: found pictures or sound in column 'x' of pictures"):
        open_data(tmp_path, "pictures")
    datasets.Dataset.from_dict({"x": [1.5, None, 2.5], "number": [1, 2, 3]}).save_to_disk(tmp_path / "null")
    with pytest.raises(DataError, match=r"null, row 1 \(from 0\): field 'x' is null, expected a number"):
        list(open_data(tmp_path, "null"))
    table(0, 0).save_to_disk(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"data\.path: nothing holds no examples, expected at least one"):
        open_data(tmp_path, "nothing")


# -- damage --------------------------------------------------------------------------------------------------


def saved(folder):
    table().save_to_disk(folder / "data")
    return folder / "data"


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        list(open_data(folder, **options))
    assert not list((folder / "scratch").iterdir())  # nothing was copied
    return str(caught.value)


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/passwd", "..", "none.arrow", 3, None])
def test_paths_that_leave_the_folder(tmp_path, name):
    folder = saved(tmp_path)
    (folder / "data-00000-of-00001.arrow").rename(tmp_path / "outside.arrow")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": None}))
    assert f"data/state.json names {name!r}, expected files in that folder" in refusal(tmp_path)


def test_splits_that_leave_the_folder(tmp_path):
    saved(tmp_path).rename(tmp_path / "outside")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["../outside"]}')
    assert "data/dataset_dict.json lists no folders in it" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"_data_files": []}', '{"_data_files": 3}', "[" * 100_000])
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_damaged_descriptions(tmp_path, name, content):
    if (name, content) == ("dataset_info.json", '{"_data_files": []}'):
        content = '{"features": {"x": {"_type": "os.system"}}}'
    (saved(tmp_path) / name).write_text(content)
    if name == "dataset_info.json" and content in ("{}", '{"_data_files": 3}'):
        assert numbers(open_data(tmp_path)) == list(range(ROWS))  # the Arrow file knows its columns itself
    else:
        assert refusal(tmp_path).startswith("data.path: ")


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_cut_short(tmp_path, kept):
    file = saved(tmp_path) / "data-00000-of-00001.arrow"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert refusal(tmp_path).startswith("data.path: data cannot be read (")


def test_texts_that_lead_out_of_their_buffer(tmp_path):
    """Arrow does not look where the ends of its texts are unless it is asked to."""
    file = saved(tmp_path) / "data-00000-of-00001.arrow"
    content = file.read_bytes()
    ends = np.cumsum([0, *(len(WORDS[i % 3]) for i in range(ROWS))]).astype(np.int32)
    wrong = ends.copy()
    wrong[10] += 2**30  # neither the first nor the last, which are always looked at
    assert content.count(ends.tobytes()) == 1
    file.write_bytes(content.replace(ends.tobytes(), wrong.tobytes()))
    assert "data, rows 0 to 29 cannot be read (ArrowInvalid" in refusal(tmp_path, targets="word", classes=WORDS)


@pytest.mark.parametrize("kind", ["parquet", "json", "csv", "arrow"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PAR1" * 9, b"\x1f\x8b" + b"\0" * 99, b'{"x": [1', b'"\n"a'])
def test_files_that_are_something_else(tmp_path, kind, content):
    (tmp_path / f"data.{kind}").write_bytes(content)
    with pytest.raises((DataError, UsageError)) as caught:
        list(open_data(tmp_path, f"data.{kind}"))
    assert str(caught.value).startswith(("data.path: ", "data.inputs: found no field 'x'", "data: "))
    del caught
    gc.collect()  # a file that was left open is an error here, and not in whichever test comes later


def test_bars_and_logs_are_as_before(tmp_path, capfd):
    datasets.enable_progress_bars()
    before = datasets.logging.get_verbosity()
    write("csv", simple(), tmp_path / "data.csv")
    capfd.readouterr()
    list(open_data(tmp_path, "data.csv", inputs="label"))
    assert capfd.readouterr() == ("", "")
    assert not datasets.utils.are_progress_bars_disabled()
    assert datasets.logging.get_verbosity() == before


def test_rows_are_read_where_they_are_needed(tmp_path):
    """The file is mapped, not slurped: opening it and reading ten rows takes no memory of its size."""
    count = 400_000
    columns = {"x": np.zeros((count, 16)), "number": np.arange(count)}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "data")
    assert sum(file.stat().st_size for file in Path(tmp_path / "data").iterdir()) > 50e6
    import pyarrow

    before = pyarrow.total_allocated_bytes()
    assert len(numbers(open_data(tmp_path, max_examples=10))) == 10
    assert pyarrow.total_allocated_bytes() - before < 1e6


def test_a_parquet_bomb(tmp_path, monkeypatch):
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(room, "_BOMB_BYTES", 10**6)
    zeros = np.zeros(100_000)
    parquet.write_table(pyarrow.table({"x": zeros, "number": zeros}), tmp_path / "data.parquet")
    assert "data.path: data.parquet grows from" in refusal(tmp_path, path="data.parquet")
    write("parquet", simple(), tmp_path / "data.parquet")
    assert numbers(open_data(tmp_path, "data.parquet")) == list(range(ROWS))
