"""Records by field as examples: texts through a tokenizer, tokens padded, numbers stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.columns import Column, Records, open_columns
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.fields import numbers, text, word
from hessdiag.loading.datasets.tokens import MASK, TOKENS, Tokenizer, labels_of
from hessdiag.problem.padding import IGNORED
from hessdiag.spec.data import HfData, JsonlData

__all__ = ["RecordExamples"]

Values = Sequence[Any]


class RecordExamples:
    """Records as examples.

    With a tokenizer the inputs are the mapping that it gives. Without one they are the fields that the spec names;
    where ``input_ids`` is among a mapping's arguments, these are texts that are tokens already: rows of several
    lengths are padded at the right, and their labels by -100.

    Raises:
        UsageError: the records lack a field that the spec names.
        DataError: a record does not hold what is expected.
    """

    def __init__(self, records: Records, spec: JsonlData | HfData, resolve: Callable[[str], Path]) -> None:
        self._records, self._spec = records, spec
        self._arguments = _arguments(spec)
        self._tokenizer: Tokenizer | None = None
        if len(records) == 0:  # told by the caller
            return
        for key, names in (("data.inputs", tuple(self._arguments.values())), ("data.targets", (spec.targets,))):
            _refuse_missing(records, names, key)
        read: Callable[[Any], Any] = partial(numbers, advice=": texts need data.tokenizer")
        if spec.tokenizer is not None:
            pairs = len(self._arguments) == 2
            self._tokenizer = Tokenizer(resolve(spec.tokenizer), spec.tokenizer, spec.max_length, pairs=pairs)
            read = text
        readers = [(name, read) for name in self._arguments.values()]
        if spec.targets is not None:
            readers.append((spec.targets, _reader_of_targets(spec)))
        self._columns = open_columns(records, readers)
        if spec.targets is not None and self._columns[-1].kind == "b":  # as class numbers
            self._columns[-1] = replace(self._columns[-1], kind="i")

    def __len__(self) -> int:
        return len(self._records)

    def batch(self, rows: Rows) -> tuple[Any, Tensor | None]:
        """The inputs as the model takes them, and the targets."""
        values: list[list[Any]] = [[] for _ in self._columns]
        taken = self._records.take(rows, [column.name for column in self._columns])
        for row, record in zip(rows, taken, strict=True):
            for column, items in zip(self._columns, values, strict=True):
                items.append(column.value(record, row))
        if self._tokenizer is not None:
            return self._of_texts(self._tokenizer, values, rows)
        if TOKENS in self._arguments:
            return self._of_tokens(values, rows)
        tensors = [column.stacked(items, rows) for column, items in zip(self._columns, values, strict=True)]
        targets = None if self._spec.targets is None else tensors.pop()
        if isinstance(self._spec.inputs, str):
            return tensors[0], targets
        if isinstance(self._spec.inputs, tuple):
            return tuple(tensors), targets
        return dict(zip(self._arguments, tensors, strict=True)), targets

    def _of_texts(self, tokenizer: Tokenizer, values: Sequence[Values], rows: Rows) -> tuple[dict[str, Tensor], Tensor]:
        inputs = tokenizer(values[: len(self._arguments)])
        empty = ~inputs[MASK].any(1)
        if self._spec.targets is None:
            labels = labels_of(inputs)
            inputs[MASK][empty, 0] = 1  # attention to nothing is NaN in some kernels; no label stands there
            return inputs, labels
        for row, without_tokens in zip(rows, empty, strict=True):
            if without_tokens:
                raise self._columns[0].unfit(row, "becomes no token, expected some: leave such examples out")
        return inputs, self._columns[-1].stacked(values[-1], rows)

    def _of_tokens(self, values: Sequence[Values], rows: Rows) -> tuple[dict[str, Tensor], Tensor | None]:
        place = list(self._arguments).index(TOKENS)
        lengths = _lengths(self._columns[place], values[place], rows)
        if MASK not in self._arguments and len(set(lengths)) > 1:
            raise UsageError(
                f"found rows of several lengths in field {self._arguments[TOKENS]!r}, expected an attention mask "
                f"beside them: name its field too, {{{TOKENS}: {TOKENS}, {MASK}: {MASK}}} (a dataset gets one by "
                f'dataset.map(lambda row: {{"{MASK}": [1] * len(row["{TOKENS}"])}}))',
                "data.inputs",
            )
        columns = zip(self._arguments, self._columns, values, strict=False)
        inputs = {argument: column.padded(items, rows, lengths, 0) for argument, column, items in columns}
        if self._spec.targets is None:
            return inputs, None
        target = self._columns[-1]
        if target.name == self._arguments[TOKENS] and MASK in inputs:
            return inputs, labels_of(inputs)
        if target.kind == "f":
            return inputs, target.stacked(values[-1], rows)
        return inputs, target.padded(values[-1], rows, lengths, IGNORED)


def _arguments(spec: JsonlData | HfData) -> dict[str, str]:
    """The fields of the inputs by argument; by number where the arguments are none."""
    if isinstance(spec.inputs, dict):
        return dict(spec.inputs)
    names = (spec.inputs,) if isinstance(spec.inputs, str) else spec.inputs
    return {str(place): name for place, name in enumerate(names)}


def _refuse_missing(records: Records, names: Sequence[str | None], key: str) -> None:
    found = records.names()
    for name in names:
        if name is not None and name not in found:
            has = ", ".join(found) or "none"
            raise UsageError(f"found no field {name!r} in {records.shown}, which has: {has}", key)


def _reader_of_targets(spec: JsonlData | HfData) -> Callable[[Any], Any]:
    if spec.classes is not None:
        return partial(word, classes=spec.classes)
    return partial(numbers, advice=": list the words as data.classes")


def _lengths(tokens: Column, values: Values, rows: Rows) -> list[int]:
    if tokens.kind != "i":
        raise DataError(
            f"data.inputs: field {tokens.name!r} does not hold whole numbers alone, expected those of tokens"
        )
    for row, value in zip(rows, values, strict=True):
        if value.ndim != 1 or not len(value):
            raise tokens.unfit(row, f"is of shape {value.shape}, expected a list of token numbers")
    return [len(value) for value in values]
