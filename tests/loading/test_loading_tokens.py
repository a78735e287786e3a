"""Texts through a tokenizer from a folder, and texts that are tokens already."""

from __future__ import annotations

import json
import os

import pytest
import texts
import torch

from hessdiag.errors import DataError, SpecError, UsageError
from hessdiag.loading.datasets import load_data
from hessdiag.spec import load_spec
from hessdiag.spec.data import JsonlData

pytest.importorskip("transformers", reason="the extra hf is not installed")

PAIR = ["sentence1", "sentence2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    texts.save_bert_tokenizer(folder / "bert")
    texts.save_gpt2_tokenizer(folder / "gpt2")
    return folder


@pytest.fixture
def open_data(folder, tmp_path):
    def opened(records, inputs, targets=None, **options):
        texts.write_lines(tmp_path / "data.jsonl", records)
        spec = JsonlData(format="jsonl", path=str(tmp_path / "data.jsonl"), inputs=inputs, targets=targets, **options)
        return load_data(spec, lambda name: folder / name)

    return opened


def message(batches):
    with pytest.raises(DataError) as caught:
        list(batches())
    return str(caught.value).partition("data.jsonl")[2]


def unpadded(batches, name):
    rows = []
    for inputs, _ in batches:
        for row, mask in zip(inputs[name], inputs["attention_mask"], strict=True):
            rows.append(row[: int(mask.sum())].tolist())
    return rows


# -- texts ---------------------------------------------------------------------------------------------------


def test_pairs_are_as_the_tokenizer_makes_them_one_by_one(folder, open_data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    alone = [tokenizer(one, two) for one, two, _ in texts.PAIRS]
    for size in (1, 3, 7):
        batches = list(open_data(texts.pairs(), PAIR, "label", tokenizer="bert", batch_size=size))
        for name in ("input_ids", "token_type_ids"):
            assert unpadded(batches, name) == [item[name] for item in alone]
        assert torch.cat([labels for _, labels in batches]).tolist() == [label for *_, label in texts.PAIRS]
        for inputs, _ in batches:
            assert set(inputs) == {"input_ids", "token_type_ids", "attention_mask"}
            assert int(inputs["attention_mask"].sum(1).max()) == inputs["input_ids"].shape[1]  # no more than it must
            assert all(tensor.dtype is torch.int64 for tensor in inputs.values())


def test_single_texts_and_a_list_of_one(open_data):
    one = list(open_data(texts.pairs(), "sentence1", "label", tokenizer="bert"))
    listed = list(open_data(texts.pairs(), ["sentence1"], "label", tokenizer="bert"))
    assert torch.equal(one[0][0]["input_ids"], listed[0][0]["input_ids"])
    assert not one[0][0]["token_type_ids"].any()


def test_classes_and_real_targets(open_data):
    words = [record | {"label": ["no", "yes"][record["label"]]} for record in texts.pairs()]
    ((_, labels),) = open_data(words, PAIR, "label", tokenizer="bert", classes=["no", "yes"])
    assert labels.tolist() == [label for *_, label in texts.PAIRS]
    scores = [record | {"label": 0.5 * row} for row, record in enumerate(texts.pairs())]
    ((_, labels),) = open_data(scores, PAIR, "label", tokenizer="bert")
    assert labels.tolist() == [0.5 * row for row in range(7)]


def records(*found):
    return [{"text": text} for text in found or texts.TEXTS]


def test_labels_of_a_language_model_are_the_tokens_and_nothing_at_padding(folder, open_data):
    """By the mask: where the text's end is the padding too, an end within a text is a target like any other."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "gpt2")
    assert tokenizer.pad_token is None
    ending = [text + "<|endoftext|>" for text in texts.TEXTS]
    alone = [tokenizer(text)["input_ids"] for text in ending]
    assert all(row[-1] == tokenizer.eos_token_id for row in alone)
    for size in (1, 3, 7):
        batches = list(open_data(records(*ending), "text", tokenizer="gpt2", batch_size=size))
        rows = [labels for _, labels in batches for labels in labels.tolist()]
        assert [[token for token in row if token != -100] for row in rows] == alone
        for inputs, labels in batches:
            assert torch.equal(labels == -100, inputs["attention_mask"] == 0)
            assert (inputs["input_ids"][labels == -100] == tokenizer.eos_token_id).all()


def test_padding_is_at_the_right_whatever_the_tokenizer_says(tmp_path, open_data):
    texts.save_bert_tokenizer(tmp_path / "left", padding_side="left")
    ((inputs, _),) = open_data(texts.pairs(), "sentence1", "label", tokenizer=str(tmp_path / "left"))
    mask = inputs["attention_mask"]
    assert mask[:, 0].all()
    assert not mask[:, -1].all()


def test_longer_texts_are_cut(tmp_path, open_data):
    def widths(tokenizer, **options):
        return [
            x["input_ids"].shape[1] for x, _ in open_data(texts.pairs(), PAIR, "label", tokenizer=tokenizer, **options)
        ]

    texts.save_bert_tokenizer(tmp_path / "short", model_max_length=9)
    (whole,) = widths("bert")
    assert whole > 12
    assert widths("bert", max_length=12) == [12]
    assert widths(str(tmp_path / "short")) == [9]
    assert widths(str(tmp_path / "short"), max_length=11) == [11]
    with pytest.raises(
        UsageError, match=r"data\.max_length: found texts of 3 tokens, of which 3 are the tokenizer's own"
    ):
        widths("bert", max_length=3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "field 'text' is null, expected text"),
        (3, "field 'text' is the number 3, expected text"),
        (["a", "b"], "field 'text' is a list, expected text"),
        ("\ud800", "field 'text' holds half of a surrogate pair, expected Unicode text"),
        (..., "field 'text' is missing, expected it in every record (here: other)"),
    ],
)
def test_what_is_no_text_is_told_with_its_line(open_data, value, expected):
    bad = {"other": 1} if value is ... else {"text": value}
    found = message(lambda: open_data([*records(), bad], "text", tokenizer="gpt2"))
    assert found == f":8: {expected}"


def test_a_text_without_tokens_is_told_with_its_line(tmp_path, open_data):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=bare).save_pretrained(tmp_path / "words")
    classes = [{"text": text, "label": 0} for text in ("a a", "  ")]
    found = message(lambda: open_data(classes, "text", "label", tokenizer=str(tmp_path / "words")))
    assert found == ":2: field 'text' becomes no token, expected some: leave such examples out"


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_empty_lines_count_for_nothing_in_a_language_model(open_data, batch_size):
    def read(*lines):
        return list(open_data(records(*lines), "text", tokenizer="gpt2", batch_size=batch_size))

    def targets(batches):
        return [token for _, labels in batches for token in labels[labels != -100].tolist()]

    batches = read("the cat sat", "", "", "a dog")
    assert targets(batches) == targets(read("the cat sat", "a dog"))
    for inputs, labels in batches:
        assert inputs["attention_mask"].any(1).all()  # attention to nothing is NaN in some kernels
        assert inputs["input_ids"].shape == labels.shape


def test_the_environment_and_the_logs_are_as_before(monkeypatch, open_data, capfd):
    from transformers import logging

    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before = logging.get_verbosity()
    list(open_data(records(), "text", tokenizer="gpt2"))
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    assert logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    list(open_data(records(), "text", tokenizer="gpt2"))
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


# -- what a tokenizer's folder may hold ----------------------------------------------------------------------


def test_a_folder_without_a_tokenizer(tmp_path, open_data):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"data\.tokenizer: found no tokenizer in .*empty \(no tokenizer\.json, vocab"):
        open_data(records(), "text", tokenizer=str(tmp_path / "empty"))


DAMAGED = [
    (name, text) for name in ("tokenizer.json", "tokenizer_config.json") for text in ("", "{", "[]", "[" * 99999)
]


@pytest.mark.parametrize(("name", "content"), [*DAMAGED, ("tokenizer.json", '{"model": {"type": "BPE"}}')])
def test_a_damaged_tokenizer(tmp_path, open_data, name, content):
    texts.save_gpt2_tokenizer(tmp_path / "damaged")
    (tmp_path / "damaged" / name).write_text(content)
    with pytest.raises(DataError, match=r"^data\.tokenizer: the tokenizer in .*damaged cannot be read \("):
        open_data(records(), "text", tokenizer=str(tmp_path / "damaged"))


def test_code_beside_a_tokenizer_does_not_run(tmp_path, open_data):
    texts.save_gpt2_tokenizer(tmp_path / "own")
    path = tmp_path / "own" / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", "tokenization_own.Own"]}, "tokenizer_class": "Own"}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import PreTrainedTokenizerFast as Own\n"
    (tmp_path / "own" / "tokenization_own.py").write_text(code)
    with pytest.raises(DataError, match="one with code of its own is not run"):
        open_data(records(), "text", tokenizer=str(tmp_path / "own"))
    assert not (tmp_path / "ran").exists()


# -- tokens --------------------------------------------------------------------------------------------------

TOKENISED = [
    {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "label": 0, "tags": [0, 1, 0], "extra": [1, 2]},
    {"input_ids": [8], "attention_mask": [1], "label": 1, "tags": [1], "extra": [3, 4]},
    {"input_ids": [9, 9, 4, 4], "attention_mask": [1, 1, 1, 0], "label": 1, "tags": [2, 2, 0, 0], "extra": [5, 6]},
]
BOTH = {"input_ids": "input_ids", "attention_mask": "attention_mask"}


def test_rows_of_several_lengths_are_padded(open_data):
    ((inputs, labels),) = open_data(TOKENISED, BOTH | {"other": "extra"}, "label")
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0], [9, 9, 4, 4]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    assert inputs["other"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert labels.tolist() == [0, 1, 1]
    assert [x["input_ids"].shape[1] for x, _ in open_data(TOKENISED, BOTH, "label", batch_size=1)] == [3, 1, 4]


def test_labels_for_each_token_and_the_tokens_themselves(open_data):
    ((_, labels),) = open_data(TOKENISED, BOTH, "tags")
    assert labels.tolist() == [[0, 1, 0, -100], [1, -100, -100, -100], [2, 2, 0, 0]]
    ((_, labels),) = open_data(TOKENISED, BOTH, "input_ids")
    assert labels.tolist() == [[5, 6, 7, -100], [8, -100, -100, -100], [9, 9, 4, -100]]


def test_tokens_without_a_mask(open_data):
    whole = [record for record in TOKENISED if len(record["input_ids"]) == 4]
    ((inputs, _),) = open_data(whole * 2, {"input_ids": "input_ids"}, "label")
    assert set(inputs) == {"input_ids"}
    with pytest.raises(
        UsageError, match=r"data\.inputs: found rows of several lengths in field 'input_ids', expected an"
    ):
        list(open_data(TOKENISED, {"input_ids": "input_ids"}, "label"))
    found = message(lambda: open_data(TOKENISED, "input_ids", "label"))
    assert found == ":2: field 'input_ids' is of shape (1,), expected (3,), as in the first record"


def test_faults_of_tokens(open_data):
    short = [*TOKENISED, {"input_ids": [1, 2, 3], "attention_mask": [1, 1], "label": 0}]
    assert message(lambda: open_data(short, BOTH, "label")) == (
        ":4: field 'attention_mask' is of shape (2,), expected (3,), as its tokens"
    )
    real = [*TOKENISED, {"input_ids": [1.5], "attention_mask": [1], "label": 0}]
    with pytest.raises(DataError, match=r"data\.inputs: field 'input_ids' does not hold whole numbers alone"):
        list(open_data(real, BOTH, "label"))
    empty = [*TOKENISED, {"input_ids": [], "attention_mask": [], "label": 0}]
    assert ":4: field 'input_ids' is of shape (0,)" in message(lambda: open_data(empty, BOTH, "label"))


# -- the spec ------------------------------------------------------------------------------------------------


def test_a_spec_that_does_not_fit_a_tokenizer(tmp_path, folder):
    (tmp_path / "model.py").write_text("def build():\n    ...\n")
    (tmp_path / "data.jsonl").write_text("{}")
    model = "model: {class_path: model.py:build}\ndata:\n  format: jsonl\n  path: data.jsonl\n  targets: y\n"
    for lines, expected in {
        "  inputs: {a: b}\n  tokenizer: TOK\n": "6:11: data.inputs: found a mapping, expected the name of a field",
        "  inputs: [a, b, c]\n  tokenizer: TOK\n": "6:11: data.inputs: found a list, expected the name of a field",
        "  inputs: a\n  max_length: 3\n": "7:15: data.max_length: found 3, expected none without a tokenizer",
    }.items():
        (tmp_path / "audit.yaml").write_text(model + lines.replace("TOK", str(folder / "bert")))
        with pytest.raises(SpecError) as caught:
            load_spec(tmp_path / "audit.yaml")
        assert expected in str(caught.value)
