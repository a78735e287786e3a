"""The schedules of the learning rate: one small model for each, and the union that ``train.schedule`` holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from hessdiag.spec.fields import (
    Fraction,
    NonNegative,
    OrText,
    Positive,
    StrictModel,
    alternatives,
    expected,
    name_required,
)
from hessdiag.spec.names import ScheduleName

__all__ = ["ConstantSchedule", "CosineSchedule", "Schedule", "StepSchedule"]

_NAMES: tuple[str, ...] = get_args(ScheduleName)
_AT = ("train", "schedule")


class _Schedule(StrictModel):
    model_config = ConfigDict(json_schema_extra=name_required)

    name: str


class ConstantSchedule(_Schedule):
    """The learning rate as it is."""

    name: Literal["constant"] = Field(default="constant", description="The schedule.")


class StepSchedule(_Schedule):
    """The learning rate times ``factor``, every so many epochs."""

    name: Literal["step"] = Field(default="step", description="The schedule.")
    every: Positive = Field(default=10.0, description="Epochs between two steps.")
    factor: Positive = Field(default=0.1, description="What the learning rate is multiplied with at each.")


class CosineSchedule(_Schedule):
    """A linear warm-up from 0, then half a cosine from the learning rate down to ``floor`` of it."""

    name: Literal["cosine"] = Field(default="cosine", description="The schedule.")
    warmup: NonNegative = Field(default=0.0, description="Epochs of the warm-up.")
    floor: Fraction = Field(default=0.0, description="The learning rate at the end, as a share of the highest.")


def _normalise(value: Any) -> Any:
    """Turn the short form ``schedule: NAME`` into ``{name: NAME}`` and refuse an unknown name."""
    if isinstance(value, _Schedule):
        return value
    if isinstance(value, dict) and "name" not in value:
        context = {"phrase": alternatives(_NAMES), "at": (*_AT, "name")}
        raise PydanticCustomError("missing", "expected {phrase}", context)
    mapping = value if isinstance(value, dict) else {"name": value}
    if mapping["name"] not in _NAMES:
        raise expected(alternatives(_NAMES), names=_NAMES, at=(*_AT, "name") if isinstance(value, dict) else _AT)
    return mapping


# Tags stand in the locations of pydantic's faults; no key of a spec can be mistaken for one in angle brackets.
def _tag(value: Any) -> str:
    return f"<{value.name if isinstance(value, _Schedule) else value['name']}>"


Schedule = Annotated[
    Annotated[ConstantSchedule, Tag("<constant>")]
    | Annotated[StepSchedule, Tag("<step>")]
    | Annotated[CosineSchedule, Tag("<cosine>")],
    Discriminator(_tag),
    BeforeValidator(_normalise),
    OrText({"enum": list(_NAMES)}),
]
