"""Text tables: columns by name, numbers as written, and every fault at its line."""

from __future__ import annotations

import csv
import tracemalloc

import numpy as np
import pytest
import tiny
import torch

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import csv as reader
from hessdiag.loading.datasets import load_data, room
from hessdiag.spec.data import CsvData

TABLE = "age,height,label\n31,1.75,0\n 4,0.98,2\n65,1.6e0,1\n"


def open_data(folder, text, **options):
    (folder / "data.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_data(CsvData(**{"format": "csv", "path": "data.csv", "targets": "label", **options}), folder.joinpath)


def read(folder, text=TABLE, **options):
    ((inputs, targets),) = open_data(folder, text, **options)
    return inputs, targets


def refusal(folder, text, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        read(folder, text, **options)
    return str(caught.value)


def test_all_columns_but_the_targets(tmp_path):
    inputs, targets = read(tmp_path)
    assert inputs.dtype is torch.float64
    assert inputs.tolist() == [[31, 1.75], [4, 0.98], [65, 1.6]]
    assert targets.dtype is torch.int64
    assert targets.tolist() == [0, 2, 1]


def test_columns_by_name_in_the_order_asked_for(tmp_path):
    assert read(tmp_path, inputs="height")[0].tolist() == [[1.75], [0.98], [1.6]]
    assert read(tmp_path, inputs=["height", "age"])[0].tolist() == [[1.75, 31], [0.98, 4], [1.6, 65]]
    mapped, targets = read(tmp_path, inputs={"a": ["age"], "b": ["height", "age"]}, targets=None)
    assert {name: item.tolist() for name, item in mapped.items()} == {
        "a": [[31], [4], [65]],
        "b": [[1.75, 31], [0.98, 4], [1.6, 65]],
    }
    assert targets is None


@pytest.mark.parametrize(
    "text",
    [
        TABLE.encode("utf-8-sig"),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\n\n") + "\n\n",
        TABLE.rstrip("\n"),
        TABLE.replace(",", " , "),
        TABLE.replace("31", '"31"').replace("height", '"height"'),
    ],
    ids=["byte order mark", "CRLF", "empty lines", "no last end of line", "blanks", "quotes"],
)
def test_tables_as_programs_write_them(tmp_path, text):
    inputs, targets = read(tmp_path, text)
    assert inputs.tolist() == [[31, 1.75], [4, 0.98], [65, 1.6]]
    assert targets.tolist() == [0, 2, 1]


def test_quoted_names_and_other_delimiters(tmp_path):
    text = '"height; in m";"the ""label"""\n1.5;1\n'
    inputs, targets = read(tmp_path, text, delimiter=";", targets='the "label"', inputs="height; in m")
    assert (inputs.item(), targets.item()) == (1.5, 1)
    assert read(tmp_path, TABLE.replace(",", "\t"), delimiter="\t")[1].tolist() == [0, 2, 1]


def test_numbers_are_as_python_reads_them(tmp_path):
    numbers = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    inputs, _ = read(tmp_path, "x,label\n" + "".join(f"{number!r},0\n" for number in map(float, numbers)))
    assert inputs[:, 0].tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        (["3", "-1", "+2"], torch.int64, [3, -1, 2]),
        (["9007199254740993", "0", "0"], torch.int64, [2**53 + 1, 0, 0]),
        (["3", "1.0", "2"], torch.float64, [3, 1, 2]),
        ([".5", "1e2", "2."], torch.float64, [0.5, 100, 2]),
        (["99999999999999999999", "0", "0"], torch.float64, [1e20, 0, 0]),
    ],
)
def test_targets_are_whole_numbers_or_others(tmp_path, cells, dtype, values):
    _, targets = read(tmp_path, "x,label\n" + "".join(f"0,{cell}\n" for cell in cells))
    assert targets.dtype is dtype
    assert targets.tolist() == values


WORDS = "x,label\n1,cat\n2,dog\n3, cat \n"


def test_words_become_the_numbers_of_their_classes(tmp_path):
    assert read(tmp_path, WORDS, classes=["dog", "cat"])[1].tolist() == [1, 0, 1]
    assert read(tmp_path, TABLE, classes=["2", "1", "0"])[1].tolist() == [2, 0, 1]


def test_words_without_classes_are_listed(tmp_path):
    message = refusal(tmp_path, WORDS, UsageError)
    assert message == (
        "data.classes: missing, but column 'label' of data.csv holds words (cat, dog): "
        "list them in the order of their class numbers, as classes: [cat, dog]"
    )
    many = refusal(tmp_path, "x,label\n" + "".join(f"1,w{n:02}\n" for n in range(40)), UsageError)
    assert "(w00, w01, w02, w03, w04, w05, w06, w07, w08, w09, w10, w11, ...)" in many


def test_a_word_that_is_none_of_the_classes(tmp_path):
    message = refusal(tmp_path, WORDS, UsageError, classes=["dog", "wolf"])
    assert message == "data.classes: data.csv:2: found 'cat' in column 'label', expected one of dog, wolf"


FAULTS = {
    "a word": (TABLE.replace("0.98", "n/a"), "data.csv:3: found 'n/a' in column 'height', expected a number"),
    "empty": (TABLE.replace("65", " "), "data.csv:4: found an empty cell in column 'age', expected a number"),
    "nan": (TABLE.replace("65", "NaN"), "data.csv:4: found 'NaN' in column 'age', expected a number"),
    "infinite": (TABLE.replace("65", "1e999"), "data.csv:4: found '1e999' in column 'age', expected a number"),
    "Python's": (TABLE.replace("65", "6_5"), "data.csv:4: found '6_5' in column 'age', expected a number"),
    "another alphabet": (TABLE.replace("65", "٦"), "data.csv:4: found '٦' in column 'age', expected a number"),
    "a comma": (TABLE.replace("1.75", '"1,75"'), "data.csv:2: found '1,75' in column 'height', expected a number"),
    "an empty target": (
        TABLE.replace(",2\n", ",\n"),
        "data.csv:3: found an empty cell in column 'label', expected a n",
    ),
    "one word as target": (TABLE.replace(",2\n", ",x\n"), "data.csv:3: found 'x' in column 'label', expected a number"),
    "few cells": (TABLE + "3,4\n", "data.csv:5: found 2 cells, expected 3, one for each column"),
    "many cells": (TABLE + "1,2,3,4\n", "data.csv:5: found 4 cells, expected 3, one for each column"),
    "an open quote": (TABLE + '"1,2,3\n', "data.csv:5: found no row of a table (unexpected end of data)"),
    "after a quote": (TABLE + '"1"2,2,3\n', "data.csv:5: found no row of a table ("),
    "after a long cell": (TABLE.replace("31", '"\n31"').replace("65", "x"), "data.csv:5: found 'x' in column 'age'"),
    "a field without end": (TABLE + '"' + "a,\n" * 70_000, "field larger than field limit"),
    "UTF-16": (TABLE.encode("utf-16"), "data.csv is not UTF-8 text (found the byte 0xff)"),
    "zeros": (TABLE.encode() + bytes(9), "data.csv:5: found 1 cell, expected 3"),
    "nothing": ("", "data.csv is empty, expected a line of column names"),
    "names only": ("age,height,label\n", "data.csv holds no examples, expected at least one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_have_their_line_and_column(tmp_path, fault):
    text, words = FAULTS[fault]
    assert words in refusal(tmp_path, text)


def test_a_fault_far_down_has_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_ROWS", 100)
    lines = ["x,label", *(f"{n},{n % 3}" for n in range(1000))]
    lines[700] = "oops,1"
    assert "data.csv:701: found 'oops'" in refusal(tmp_path, "\n".join(lines))
    lines[700] = "1,1"
    inputs, targets = read(tmp_path, "\n".join(lines), batch_size=2000)
    assert inputs[[98, 99, 100, 101, 999], 0].tolist() == [98, 99, 100, 101, 999]
    assert targets.tolist() == [n % 3 if n != 699 else 1 for n in range(1000)]


def test_columns_that_are_not_there(tmp_path):
    message = refusal(tmp_path, TABLE, UsageError, inputs=["agee"])
    assert (
        message == "data.inputs: found no column 'agee' in data.csv, which has: age, height, label; did you mean age?"
    )
    assert "data.targets: found no column 'y' in data.csv" in refusal(tmp_path, TABLE, UsageError, targets="y")
    message = refusal(tmp_path, TABLE, UsageError, inputs={"a": ["age"], "b": ["x"]})
    assert message.startswith("data.inputs.b: found no column 'x'")
    message = refusal(tmp_path, TABLE.replace(",", ";"), UsageError)
    assert message.endswith("which has: age;height;label: is data.delimiter ';'?")


def test_columns_that_are_there_twice(tmp_path):
    twice = TABLE.replace("height", "age")
    assert "data.inputs: found 2 columns 'age' in data.csv" in refusal(tmp_path, twice, UsageError)
    assert "found column 'age' 2 times" in refusal(tmp_path, TABLE, UsageError, inputs=["age", "age"])
    assert read(tmp_path, TABLE.replace("age", "height").replace("height", "a", 1), inputs="a")[1].tolist() == [0, 2, 1]


def test_the_index_that_pandas_writes_is_no_feature_by_itself(tmp_path):
    text = "".join(f"{n},{line}\n" for n, line in zip(["", 0, 1, 2], TABLE.splitlines(), strict=True))
    assert "has a column without a name, likely an index that pandas wrote" in refusal(tmp_path, text, UsageError)
    assert read(tmp_path, text, inputs=["age", "height"])[0][0].tolist() == [31, 1.75]
    assert "has no columns but the targets" in refusal(tmp_path, "label\n1\n", UsageError)


def test_a_line_without_end_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_LONGEST_LINE", 100_000)
    (tmp_path / "data.csv").write_bytes(b"1" * 20_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"data\.csv:1: found a line of 100000 characters or more"):
        load_data(CsvData(format="csv", path="data.csv", targets="y"), tmp_path.joinpath)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def test_a_table_beyond_the_free_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda device: 50)
    assert "data.csv up to line 4 takes 4.32e-07 GB in memory, of which 5e-08 GB are free: write" in refusal(
        tmp_path, TABLE
    )


def test_faults_on_the_command_line_have_the_place_of_their_key(tmp_path):
    from typer.testing import CliRunner

    from hessdiag.cli.app import app

    spec = tiny.write(tmp_path)
    with (tmp_path / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "c", "d", "kind"], [1, 2, 3, 4, "cat"]])
    data = "data:\n  format: csv\n  path: data.csv\n  targets: KIND\n"
    before, _, after = tiny.SPEC.partition("data:\n")
    for target, words in (
        (
            "kidn",
            "7:12: data.targets: found no column 'kidn' in data.csv, which has: a, b, c, d, kind; did you mean kind?",
        ),
        ("kind", ": data.classes: missing, but column 'kind' of data.csv holds words (cat)"),
    ):
        spec.write_text(before + data.replace("KIND", target) + after[after.index("audit:") :])
        result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["audit", str(spec)])
        assert result.exit_code == 2, result.stderr
        assert words in result.stderr
