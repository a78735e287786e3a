"""JSON lines: numbers by field, found again by line; every fault has its line."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from typer.testing import CliRunner

from hessdiag.cli.app import app
from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets import jsonl, load_data
from hessdiag.spec.data import JsonlData


def open_data(folder, inputs="x", targets="y", **options):
    spec = JsonlData(format="jsonl", path="data.jsonl", inputs=inputs, targets=targets, **options)
    return load_data(spec, lambda name: folder / name)


def write(folder, *records, between="\n"):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "data.jsonl").write_bytes(between.join(lines).encode())


def numbered(count=30):
    return [{"x": [i, i / 2], "y": i, "m": [[i, 0], [0, i]]} for i in range(count)]


def message(folder, **options):
    with pytest.raises(DataError) as caught:
        list(open_data(folder, **options))
    return str(caught.value)


def test_the_report_is_that_of_the_same_arrays(tmp_path):
    spec = tiny.write(tmp_path)
    expected = tiny.load(spec)
    x, y = tiny.arrays().values()
    write(tmp_path, *({"x": row, "y": label} for row, label in zip(x.tolist(), y.tolist(), strict=True)))
    found = tiny.load(spec, "data.format=jsonl", "data.path=data.jsonl")
    assert found.loss_value == expected.loss_value
    assert found.data_info.examples == tiny.EXAMPLES
    assert (
        found.data_info.fingerprint
        == tiny.load(spec, "data.format=jsonl", "data.path=data.jsonl", "data.batch_size=7").data_info.fingerprint
    )


def test_batches_in_order_again_and_again_with_blank_lines_passed_over(tmp_path):
    write(tmp_path, "\ufeff" + json.dumps(numbered()[0]), "", *numbered()[1:13], "  \t", "\r", *numbered()[13:], "", "")
    data = open_data(tmp_path, batch_size=12)
    for _ in range(2):
        batches = list(data)
        assert [len(y) for _, y in batches] == [12, 12, 6]
        assert torch.cat([y for _, y in batches]).tolist() == list(range(30))
        assert torch.equal(torch.cat([x for x, _ in batches])[:, 1] * 2, torch.arange(30.0, dtype=torch.float64))


def test_inputs_by_name_by_list_and_by_mapping(tmp_path):
    write(tmp_path, *numbered())
    tensor, y = next(iter(open_data(tmp_path, batch_size=4)))
    listed, _ = next(iter(open_data(tmp_path, ["x", "m", "x"], batch_size=4)))
    mapped, _ = next(iter(open_data(tmp_path, {"a": "x", "b": "m"}, batch_size=4)))
    assert (tensor.shape, tensor.dtype, y.dtype) == ((4, 2), torch.float64, torch.int64)
    assert [item.shape for item in listed] == [(4, 2), (4, 2, 2), (4, 2)]
    assert {name: item.shape for name, item in mapped.items()} == {"a": (4, 2), "b": (4, 2, 2)}
    assert [targets for _, targets in open_data(tmp_path, targets=None)] == [None]


def test_a_subset(tmp_path):
    write(tmp_path, *numbered())
    chosen = list(open_data(tmp_path, max_examples=10, batch_size=4))
    assert [len(y) for _, y in chosen] == [4, 4, 2]
    assert all(torch.equal(x[:, 0].long(), y) for x, y in chosen)
    rows = torch.cat([y for _, y in chosen]).tolist()
    assert rows == sorted(set(rows)) != list(range(10))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_one_kind_of_number_in_the_whole_file(tmp_path, size):
    """JSON writes 1.0 as 1 as it likes; what a batch holds must not depend on which records are in it."""
    write(tmp_path, {"x": [1, 2], "y": 1}, {"x": [3, 4], "y": 2}, {"x": [0.5, 6], "y": 2.5}, {"x": [7, 8], "y": 3})
    for x, y in open_data(tmp_path, batch_size=size):
        assert x.dtype == y.dtype == torch.float64


def test_truth_values(tmp_path):
    write(tmp_path, {"x": True, "y": True}, {"x": False, "y": False})
    ((x, y),) = open_data(tmp_path)
    assert (x.tolist(), x.dtype) == ([True, False], torch.bool)
    assert (y.tolist(), y.dtype) == ([1, 0], torch.int64)


def test_words_of_classes(tmp_path):
    words = ["no", "yes", "maybe", "yes"]
    write(tmp_path, *({"x": 1.5, "y": word} for word in words))
    ((_, y),) = open_data(tmp_path, classes=["yes", "no", "maybe"])
    assert (y.tolist(), y.dtype) == ([1, 0, 2, 0], torch.int64)
    found = message(tmp_path, classes=["yes", "no"])
    assert found == "data.jsonl:3: field 'y' is the text 'maybe', expected one of data.classes: yes, no"
    assert "field 'y' is the text 'no', expected a number" in message(tmp_path)
    assert message(tmp_path).endswith(": list the words as data.classes")


GOOD = {"x": [1.5, 2.0], "y": 1}
DEEP = "[" * 100_000 + "]" * 100_000
FAULTS = {
    "missing": ({"x": [1.5, 2]}, "field 'y' is missing, expected it in every record (here: x)"),
    "null": ({"x": [1.5, 2], "y": None}, "field 'y' is null, expected a number, or lists of numbers"),
    "text": ({"x": "1.5", "y": 1}, "field 'x' is the text '1.5', expected a number, or lists of numbers"),
    "text in it": ({"x": [1.5, "2"], "y": 1}, "field 'x' holds other things than numbers of 64 bits"),
    "null in it": ({"x": [1.5, None], "y": 1}, "field 'x' holds other things than numbers of 64 bits"),
    "mapping": ({"x": {"a": 1}, "y": 1}, "field 'x' is a mapping, expected a number"),
    "ragged": ({"x": [[1.5], [2, 3]], "y": 1}, "field 'x' holds lists of several lengths or depths"),
    "another shape": ({"x": [1.5], "y": 1}, "field 'x' is of shape (1,), expected (2,), as in the first record"),
    "not finite": ('{"x": [NaN, 2], "y": 1}', "field 'x' holds NaN or infinity, expected finite numbers"),
    "overflow": ('{"x": [1e999, 2], "y": 1}', "field 'x' holds NaN or infinity, expected finite numbers"),
    "65 bits": ({"x": [1, 2], "y": 2**64}, "field 'y' is the number 18446744073709551616, expected a number"),
    "64 bits": ({"x": [1, 2], "y": 2**63}, "field 'y' is the number 9223372036854775808, expected a number"),
    "wide": ({"x": [1, 2], "y": 10**99}, "field 'y' is a number of more than 64 bits, expected a number"),
    "huge": ('{"x": [1, 2], "y": 1' + "0" * 5000 + "}", "found what is no JSON (Exceeds the limit (4300 digits)"),
    "deep": ('{"y": 1, "x": ' + DEEP + "}", "found brackets nested too deeply, expected a JSON object on each line"),
    "deeper than arrays": ('{"y": 1, "x": ' + "[" * 90 + "]" * 90 + "}", "field 'x' "),
    "no JSON": ('{"x": 1, "y"', "found what is no JSON (Expecting"),
    "a list": ("[1, 2]", "found a list, expected a JSON object on each line"),
    "a number": ("3", "found the number 3, expected a JSON object on each line"),
    "a document": ("[", "document over several lines: data.format: hf"),
}


@pytest.mark.parametrize(("record", "expected"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told_with_their_line(tmp_path, record, expected):
    write(tmp_path, GOOD, "", GOOD, GOOD, record, GOOD)
    assert message(tmp_path, batch_size=2).startswith("data.jsonl:5: ")
    assert expected in message(tmp_path, batch_size=2)
    write(tmp_path, record, GOOD)
    if not expected.endswith(("first record", "(here: x)")):  # of the first record they are others
        assert message(tmp_path).startswith("data.jsonl:1: ")


def test_bytes_that_are_no_text(tmp_path):
    write(tmp_path, GOOD, GOOD)
    content = (tmp_path / "data.jsonl").read_bytes()
    (tmp_path / "data.jsonl").write_bytes(content + b'\n{"x": "\xff"}')
    assert message(tmp_path).startswith("data.jsonl:3: found bytes that are no UTF-8 text, expected")


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "_LONGEST", 1000)
    write(tmp_path, GOOD, "9" * 2000)
    assert message(tmp_path).startswith("data.jsonl:2: found a line of over 1000 bytes, expected one JSON object")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_no_records(tmp_path, content):
    write(tmp_path, content)
    assert message(tmp_path) == "data: data.jsonl holds no examples, expected at least one"


def test_fields_that_are_not_there(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(UsageError, match=r"data\.inputs: found no field 'z' in data\.jsonl, which has: x, y"):
        open_data(tmp_path, inputs="z")
    with pytest.raises(UsageError, match=r"data\.targets: found no field 'label'"):
        open_data(tmp_path, targets="label")


def test_only_the_places_of_lines_are_held(tmp_path):
    write(tmp_path, *numbered(), *({"x": [0, "a" * 1000], "y": 0} for _ in range(1000)))
    lines = jsonl._Lines(tmp_path / "data.jsonl", "data.jsonl")
    assert len(lines) == 1030
    assert lines._starts.nbytes == 8 * 1030


def test_the_command_line_tells_the_place_in_the_spec(tmp_path, monkeypatch):
    tiny.write(tmp_path)
    write(tmp_path, *({"x": [0.5] * 4, "label": 0} for _ in range(3)))
    text = tiny.SPEC.replace("format: npz", "format: jsonl").replace("data.npz", "data.jsonl")
    (tmp_path / "audit.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["trace", "audit.yaml"])
    assert result.exit_code == 2
    assert "audit.yaml:8:12: data.targets: found no field 'y' in data.jsonl, which has: x, label" in result.stderr
    write(tmp_path, {"x": [0.5] * 4, "y": 0}, {"x": [0.5] * 4})
    result = CliRunner().invoke(app, ["trace", "audit.yaml"])
    assert result.exit_code == 3
    assert "data.jsonl:2: field 'y' is missing" in result.stderr
