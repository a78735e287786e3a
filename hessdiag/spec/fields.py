"""The kinds of value that a spec holds, each with the words that say what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, WrapValidator
from pydantic_core import CoreSchema, PydanticCustomError

__all__ = [
    "AnyWhole",
    "Finite",
    "Fraction",
    "Globs",
    "NonNegative",
    "OptionalText",
    "OrText",
    "Positive",
    "StrictModel",
    "Text",
    "Weights",
    "Whole0",
    "Whole1",
    "Whole2",
    "Whole16",
    "alternatives",
    "expected",
    "expecting",
    "name_required",
    "one_of",
]


class StrictModel(BaseModel):
    """Frozen, with the keys that it names and no others, and without conversions: "256" is not a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def expected(phrase: str, *, names: tuple[str, ...] = (), at: tuple[str, ...] | None = None) -> PydanticCustomError:
    """Make the fault "found ..., expected ``phrase``".

    Args:
        phrase: what should stand there.
        names: the words among which a near miss is looked for.
        at: the path in the spec that is to blame, where it is not that of the field.
    """
    return PydanticCustomError("expected", "expected {phrase}", {"phrase": phrase, "names": names, "at": at})


class OrText:
    """Says in the JSON schema of a mapping that a text alone will do: one that fits any of ``texts``."""

    def __init__(self, *texts: dict[str, Any]) -> None:
        self._texts = texts

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [*self._texts, handler(schema)]}


def name_required(schema: dict[str, Any]) -> None:
    """Ask for the name in the JSON schema; its default serves Python only: without it a mapping would fit several."""
    schema["required"] = ["name"]


def expecting(phrase: str, names: tuple[str, ...] = ()) -> WrapValidator:
    """Replace whatever pydantic says about a value by "expected ``phrase``"."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise expected(phrase, names=names) from None

    return WrapValidator(check)


def alternatives(names: tuple[str, ...]) -> str:
    """Join names as a sentence does: ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def one_of(literal: Any) -> WrapValidator:
    """Say which words a ``Literal`` allows."""
    names = get_args(literal)
    return expecting(alternatives(names), names)


AnyWhole = Annotated[int, expecting("a whole number")]
Whole0 = Annotated[int, Field(ge=0), expecting("a whole number of at least 0")]
Whole1 = Annotated[int, Field(ge=1), expecting("a whole number of at least 1")]
Whole2 = Annotated[int, Field(ge=2), expecting("a whole number of at least 2")]
Whole16 = Annotated[int, Field(ge=16), expecting("a whole number of at least 16")]
Finite = Annotated[float, Field(allow_inf_nan=False), expecting("a finite number")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), expecting("a finite number greater than 0")]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), expecting("a finite number of at least 0")]
Fraction = Annotated[float, Field(ge=0, lt=1), expecting("a number from 0 to below 1")]
Text = Annotated[str, Field(min_length=1), expecting("text")]
OptionalText = Annotated[Text | None, expecting("text")]
# YAML has lists only; strictness holds for the items.
Globs = Annotated[tuple[Text, ...], Field(strict=False)]
Weights = Annotated[tuple[NonNegative, ...], Field(strict=False, min_length=1)]
