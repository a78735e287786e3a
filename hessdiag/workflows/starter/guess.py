"""What was found out about data, and guesses of what the names in them mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hessdiag.workflows.starter.text import FILL_IN, Line, flow, remark

__all__ = ["DataGuess", "Kind", "Names", "choice", "described", "pick", "place"]

Kind = Literal["integers", "floats", "words", "other"]
Names = Any
"""What stands under ``inputs``: a name, a list of them, a mapping, or None where there is no telling."""

_TARGETS = ("y", "targets", "target", "labels", "label", "y_train", "train_labels", "classes", "class", "output")
_INPUTS = ("x", "inputs", "input", "images", "image", "features", "data", "x_train", "train_images", "arr_0")
_TRANSFORMER = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "input_features")
_SHOWN = 30  # names in a remark; a table can have thousands
_BATCH_SIZE = Line("batch_size: 256", "changes time and memory, never the result")


@dataclass(frozen=True)
class DataGuess:
    """What stands under ``data:``, remarks included.

    Attributes:
        targets: their kind, None where it is not known.
        batch_size: the line that sets it.
    """

    lines: Sequence[Line]
    targets: Kind | None = None
    batch_size: Line = _BATCH_SIZE


def pick(names: Sequence[str]) -> tuple[Names, str | None]:
    """Inputs and targets among names, by what they are often called; None where there is no telling."""
    by_lower = {name.lower(): name for name in reversed(names)}
    targets = next((by_lower[name] for name in _TARGETS if name in by_lower), None)
    arguments = {name: name for name in _TRANSFORMER if name in names}
    if arguments:
        return (arguments if len(arguments) > 1 else next(iter(arguments))), targets
    inputs = next((by_lower[name] for name in _INPUTS if name in by_lower), None)
    if len(names) == 2:  # one of two tells the other
        if targets is None:
            targets = names[1] if inputs in (None, names[0]) else names[0]
        inputs = inputs or next(name for name in names if name != targets)
    return inputs, targets


def described(what: Mapping[str, str]) -> list[Line]:
    """Remarks that say what the data hold, by name."""
    about = [f"  {name}: {words}" for name, words in what.items()]
    more = [f"  and {len(about) - _SHOWN} more"] if len(about) > _SHOWN else []
    return [remark(text) for text in ["It holds:", *about[:_SHOWN], *more]]


def place(form: str, path: str) -> list[Line]:
    """The lines that say where the data lie."""
    return [Line(f"format: {form}"), Line(f"path: {flow(path)}", "relative to the folder of this file")]


def choice(key: Literal["inputs", "targets"], value: Names, names: Sequence[str]) -> Line:
    """The line of a guess; where there is none, one that must be filled in."""
    purpose = "what the model is called with" if key == "inputs" else "what the loss compares the outputs with"
    if value is not None:
        return Line(f"{key}: {flow(value)}", purpose)
    some = ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "")
    return Line(f"{key}:", f"{FILL_IN}: {purpose}; one of {some}")
