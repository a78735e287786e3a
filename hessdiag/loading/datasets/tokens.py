"""Texts to tokens, by a tokenizer from a folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.extras import import_extra
from hessdiag.memory import out_of_memory
from hessdiag.problem.padding import IGNORED

__all__ = ["MASK", "TOKENS", "Tokenizer", "labels_of"]

TOKENS, MASK = "input_ids", "attention_mask"

_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken", "tekken.json")
_PARALLEL = "TOKENIZERS_PARALLELISM"
_NO_LIMIT = 10**8  # a tokenizer that knows of no longest text says 10^30


class Tokenizer:
    """A tokenizer of the transformers library, from a folder, never from the hub.

    Args:
        folder: what ``save_pretrained`` wrote.
        shown: the folder as the spec names it.
        max_length: where longer texts are cut; None: where the tokenizer says.
        pairs: whether the texts are pairs.

    Raises:
        UsageError: the folder holds no tokenizer, or ``max_length`` leaves no room for a text.
        DataError: it cannot be read, or needs code of its own.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, folder: Path, shown: str, max_length: int | None, *, pairs: bool) -> None:
        self._shown = shown
        self._transformers = import_extra("transformers", "data.tokenizer")
        if not any(next(folder.glob(pattern), None) for pattern in _FILES):
            raise UsageError(
                f"found no tokenizer in {shown} (no tokenizer.json, vocab.txt, ...), expected the files that "
                "tokenizer.save_pretrained writes",
                "data.tokenizer",
            )
        with self._failures_told("cannot be read"):
            self._tokenizer = self._transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            if self._tokenizer.pad_token_id is None:  # as GPT-2's: any will do, since padding is masked
                spare = self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens(0)
                self._tokenizer.pad_token = spare
            own = self._tokenizer.model_max_length
            self._longest = max_length or (int(own) if own < _NO_LIMIT else None)
            special = self._tokenizer.num_special_tokens_to_add(pair=pairs)
        if self._longest is not None and self._longest <= special:
            raise UsageError(
                f"found texts of {self._longest} tokens, of which {special} are the tokenizer's own, expected more: "
                "set a larger max_length",
                "data.max_length",
            )

    def __call__(self, fields: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """The mapping for ``model(**x)``, (B, T) each, padded at the right to the longest.

        Args:
            fields: the texts (B); or two of them, for pairs.
        """
        with self._failures_told("failed on these texts"):
            encoded: Mapping[str, Tensor] = self._tokenizer(
                *(list(texts) for texts in fields),
                padding="longest",
                padding_side="right",
                truncation=self._longest is not None,
                max_length=self._longest,
                return_attention_mask=True,
                return_tensors="pt",
            )
        if encoded[TOKENS].shape[1] == 0:  # of empty texts alone
            pad = {TOKENS: self._tokenizer.pad_token_id}
            return {name: torch.full((len(tensor), 1), pad.get(name, 0)) for name, tensor in encoded.items()}
        return {name: tensor.to(torch.int64) for name, tensor in encoded.items()}

    @contextmanager
    def _failures_told(self, how: str) -> Iterator[None]:
        try:
            with _quiet(self._transformers):
                yield
        except BaseException as error:
            # A panic of the library's compiled part is no Exception.
            if out_of_memory(error) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
                raise
            raise DataError(
                f"data.tokenizer: the tokenizer in {self._shown} {how} ({type(error).__name__}: {_first_line(error)}): "
                "save it again by tokenizer.save_pretrained; one with code of its own is not run"
            ) from error


def labels_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """The tokens as targets of a causal language model, -100 at padding.

    By the mask and not by the token: the padding token may be that of the text's end.
    """
    return inputs[TOKENS].masked_fill(inputs[MASK] == 0, IGNORED)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No logs, no warnings, and no threads, which would warn when the process forks."""
    verbosity, parallel = transformers.logging.get_verbosity(), os.environ.get(_PARALLEL)
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    os.environ.setdefault(_PARALLEL, "false")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if parallel is None:
            del os.environ[_PARALLEL]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]
