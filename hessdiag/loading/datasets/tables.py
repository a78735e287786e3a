"""Which columns of a table become inputs and targets, and how words become class numbers."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hessdiag.errors import UsageError
from hessdiag.loading.checkpoints.words import few, printable
from hessdiag.spec.data import CsvData, ParquetData

__all__ = ["Columns", "choose_columns", "class_numbers", "refuse_words"]

T = TypeVar("T")

_MOST_SHOWN = 12
_INDEX = "__index_level_"  # how pandas calls an index without a name


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what becomes of them.

    Attributes:
        inputs: by argument of the model, the columns that stand side by side; under None: for model(x).
        target: the column of targets; None where the model computes its own loss.
    """

    inputs: Mapping[str | None, tuple[str, ...]]
    target: str | None

    @property
    def features(self) -> tuple[str, ...]:
        """Every column of inputs once."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))

    def arranged(self, parts: Mapping[str | None, T]) -> T | dict[str, T]:
        """What the model is called with, from what each argument gets."""
        if None in self.inputs:
            return parts[None]
        return {str(argument): parts[argument] for argument in self.inputs}


def choose_columns(spec: CsvData | ParquetData, header: Sequence[str], hint: str = "") -> Columns:
    """Hold a spec against the names of a table's columns.

    Args:
        spec: names inputs and targets; all columns but the targets are inputs where it names none.
        header: the names.
        hint: what else may be wrong where a name is not among them.

    Raises:
        UsageError: a column is not there, or several are.
    """
    if spec.targets is not None:
        _check(spec.targets, header, spec.path, "data.targets", hint)
    if spec.inputs is None:
        return Columns({None: _all_but(spec, header)}, spec.targets)
    inputs: dict[str | None, tuple[str, ...]] = {}
    if isinstance(spec.inputs, dict):
        inputs.update(spec.inputs)
    else:
        inputs[None] = (spec.inputs,) if isinstance(spec.inputs, str) else spec.inputs
    for argument, names in inputs.items():
        key = "data.inputs" if argument is None else f"data.inputs.{argument}"
        for name, count in Counter(names).items():
            _check(name, header, spec.path, key, hint)
            if count > 1:
                raise UsageError(f"found column {name!r} {count} times, expected each once", key)
    return Columns(inputs, spec.targets)


def class_numbers(words: Collection[str], classes: Sequence[str]) -> tuple[dict[str, int], str | None]:
    """The number of each class by its word, and the first of ``words`` that is none of them."""
    numbers = {word: number for number, word in enumerate(classes)}
    return numbers, next((word for word in words if word not in numbers), None)


def refuse_words(words: Collection[str], column: str, shown: str) -> UsageError:
    """What to say of words where no classes are given."""
    found = sorted(words)
    return UsageError(
        f"missing, but column {column!r} of {shown} holds words ({few(found, _MOST_SHOWN)}): list them in the "
        f"order of their class numbers, as classes: [{few(found, 3)}]",
        "data.classes",
    )


def _all_but(spec: CsvData | ParquetData, header: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name for name in header if name != spec.targets)
    index = next((name for name in names if not name or name.startswith(_INDEX)), None)
    if index is not None:
        what = repr(printable(index)) if index else "without a name"
        raise UsageError(
            f"missing, but {spec.path} has a column {what}, likely an index that pandas wrote: name the columns that "
            "the model takes",
            "data.inputs",
        )
    if not names:
        raise UsageError(f"missing, and {spec.path} has no columns but the targets", "data.inputs")
    for name in names:
        _check(name, header, spec.path, "data.inputs", "")
    return names


def _check(name: str, header: Sequence[str], shown: str, key: str, hint: str) -> None:
    if header.count(name) > 1:
        raise UsageError(
            f"found {header.count(name)} columns {name!r} in {shown}, expected one: rename the others", key
        )
    if name in header:
        return
    near = difflib.get_close_matches(name, header, n=3)
    meant = f"; did you mean {' or '.join(map(printable, near))}?" if near else hint
    raise UsageError(f"found no column {name!r} in {shown}, which has: {few(header, _MOST_SHOWN)}{meant}", key)
