"""Records: jsonl and Hugging Face datasets, of texts for a tokenizer or of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessdiag.errors import DataError
from hessdiag.files import read_json
from hessdiag.workflows.starter.columns import ROWS, Columns, begin_of, classes, kind_of, words_for
from hessdiag.workflows.starter.guess import DataGuess, Kind, Names, choice, described, pick, place
from hessdiag.workflows.starter.text import FILL_IN, Line, flow

__all__ = ["Model", "guess_dataset", "guess_jsonl"]

_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
)
_TEXTS = ("text", "sentence", "content", "document", "review", "prompt", "question")
_INTEGERS = ("int", "uint", "bool")
_SPLITS = ("train", "training")


@dataclass(frozen=True)
class Model:
    """What the checkpoint says that the data must fit.

    Attributes:
        tokenizer: the folder of its tokenizer, as the spec names it.
        causal: whether it predicts tokens.
        folder: its own, where it is one.
    """

    tokenizer: str | None = None
    causal: bool = False
    folder: Path | None = None


def guess_jsonl(path: Path, shown: str, model: Model) -> DataGuess:
    """One JSON object on each line."""
    columns = _columns(begin_of(path), shown)
    kinds = {name: kind_of(values) for name, values in columns.items()}
    what = {name: words_for(values) for name, values in columns.items()}
    inputs, targets, lines = _fields(kinds, model)
    found = classes(columns[targets]) if targets is not None else []
    chosen = _chosen(inputs, targets, list(what), model)
    return DataGuess(
        [*described(what), *place("jsonl", shown), *chosen, *lines, *found], _target_kind(targets, kinds, model)
    )


def guess_dataset(folder: Path, shown: str, model: Model) -> DataGuess:
    """What ``save_to_disk`` wrote: its own JSON files tell everything."""
    splits = (read_json(folder / "dataset_dict.json") or {}).get("splits")
    split: list[Line] = []
    if isinstance(splits, list) and splits:
        name = next((name for name in _SPLITS if name in splits), str(splits[0]))
        split = [Line(f"split: {flow(name)}", f"one of {', '.join(map(str, splits))}")]
        folder = folder / name
    features = (read_json(folder / "dataset_info.json") or {}).get("features")
    if not isinstance(features, dict) or not features:
        raise DataError(f"{shown}: its dataset_info.json names no features: save the dataset again (save_to_disk)")
    kinds, what = _features(features)
    inputs, targets, lines = _fields(kinds, model)
    chosen = _chosen(inputs, targets, list(what), model)
    return DataGuess(
        [*described(what), *place("hf", shown), *split, *chosen, *lines], _target_kind(targets, kinds, model)
    )


def _columns(text: str, shown: str) -> Columns:
    lines = [line for line in text.splitlines()[:ROWS] if line.strip()]
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{shown}:{number}: found no JSON ({error}); expected an object on each line") from None
        if not isinstance(record, dict):
            raise DataError(f"{shown}:{number}: found no object; expected {{field: value, ...}} on each line")
        records.append(record)
    if not records or not records[0]:
        raise DataError(f"{shown}: found no records; expected a JSON object on each line")
    return {name: [record.get(name) for record in records] for name in records[0]}


def _features(features: Mapping[str, Any]) -> tuple[dict[str, Kind], dict[str, str]]:
    """Kinds and words from a dataset's description."""
    kinds: dict[str, Kind] = {}
    what = {}
    for name, feature in features.items():
        kind = feature if isinstance(feature, dict) else {}
        dtype = str(kind.get("dtype", ""))
        words = str(kind.get("_type", "list"))
        if words == "ClassLabel":
            kinds[name], names = "integers", kind.get("names")
            what[name] = f"classes {', '.join(map(str, names[:10]))}" if isinstance(names, list) else "classes"
        else:
            kinds[name] = _kind(dtype) if words == "Value" else "other"
            what[name] = dtype or words
    return kinds, what


def _kind(dtype: str) -> Kind:
    if dtype.startswith(_INTEGERS):
        return "integers"
    return "floats" if dtype.startswith("float") else "words" if "string" in dtype else "other"


def _fields(kinds: Mapping[str, Kind], model: Model) -> tuple[Names, str | None, list[Line]]:
    """Inputs, targets, and the tokenizer's lines where the inputs are texts."""
    inputs, targets = pick(list(kinds))
    texts = [name for name, kind in kinds.items() if kind == "words" and (model.causal or name != targets)]
    if not texts or isinstance(inputs, dict) or "input_ids" in kinds:
        return inputs, targets, []
    inputs = _texts(texts)
    if targets == inputs:
        targets = None
    tokenizer = "the folder of its tokenizer"
    known = model.tokenizer is not None
    return (
        inputs,
        None if model.causal else targets,
        [
            Line(f"tokenizer: {flow(model.tokenizer or FILL_IN)}", tokenizer if known else f"{FILL_IN}: {tokenizer}"),
            Line("max_length: 128", "longer texts are cut there, in tokens"),
        ],
    )


def _texts(names: Sequence[str]) -> Names:
    for pair in _PAIRS:
        if all(name in names for name in pair):
            return list(pair)
    return next((name for name in _TEXTS if name in names), names[0])


def _chosen(inputs: Names, targets: str | None, names: Sequence[str], model: Model) -> list[Line]:
    lines = [choice("inputs", inputs, names)]
    if targets is None and model.causal:  # the tokens are their own targets
        return lines
    return [*lines, choice("targets", targets, names)]


def _target_kind(targets: str | None, kinds: Mapping[str, Kind], model: Model) -> Kind | None:
    if targets is None:
        return "integers" if model.causal else None
    return kinds[targets]
