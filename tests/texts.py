"""Texts, and tokenizers made of nothing: BERT's for pairs of sentences, GPT-2's without a padding token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "the",
    "cat",
    "dog",
    "mat",
    "sat",
    "ran",
    "slept",
    "on",
    "under",
    "with",
    "##s",
    "##ing",
    ".",
    ",",
]
PAIRS = [
    ("the cat sat on the mat .", "a cat sat .", 1),
    ("a dog ran .", "the dogs slept under the mat , with a cat .", 0),
    ("cats", "dogs", 0),
    ("the dog slept with the cat .", "the cat slept with the dog .", 1),
    ("the mat .", "a mat , sitting", 1),
    ("a cat ran , a dog ran .", "the cat", 0),
    ("on the mat the dog slept .", "the dog slept on the mat .", 1),
]
TEXTS = [
    "the cat sat on the mat",
    "a dog",
    "the dog ran under the mat with the cat, and the cat slept",
    "cats and dogs",
    "a",
    "the mat",
    "dogs ran",
]


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def pairs() -> list[dict[str, Any]]:
    return [{"sentence1": one, "sentence2": two, "label": label} for one, two, label in PAIRS]


def save_bert_tokenizer(folder: Path, **options: Any) -> Any:
    from transformers import BertTokenizerFast

    vocabulary = folder.parent / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), **options)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_gpt2_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()))[:100]
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(vocab_size=110, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    bare.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=end, bos_token=end, unk_token=end)
    tokenizer.save_pretrained(folder)
    return tokenizer
