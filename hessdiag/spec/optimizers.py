"""The optimizer that steps: ``train.optimizer``, a class of torch.optim by its name, with its options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from hessdiag.spec.fields import OrText, StrictModel, Text, expected

__all__ = ["Optimizer", "OptimizerSpec"]

_EXPECTED = "the name of a class of torch.optim, as AdamW"
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"
_BESIDE = ("lr", "momentum", "weight_decay")
_AT = ("train", "optimizer")


def _class_name(text: str) -> str:
    if not text.isidentifier():
        raise expected(_EXPECTED)
    return text


def _schema(schema: dict[str, Any]) -> None:
    schema["not"] = {"anyOf": [{"required": [key]} for key in _BESIDE]}


class OptimizerSpec(StrictModel):
    """A class of torch.optim; the keys beside its name are its keyword arguments."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_schema)

    name: Annotated[Text, AfterValidator(_class_name)] = Field(description="The class.", pattern=_IDENTIFIER)

    def options(self) -> dict[str, Any]:
        """The keyword arguments, without learning rate, momentum and weight decay, which stand beside."""
        return dict(self.model_extra or {})


def _normalise(value: Any) -> Any:
    """Turn the short form ``optimizer: NAME`` into ``{name: NAME}``."""
    if isinstance(value, OptimizerSpec):
        return value
    if not isinstance(value, dict):
        if not isinstance(value, str) or not value.isidentifier():
            raise expected(_EXPECTED, at=_AT)
        return {"name": value}
    if "name" not in value:
        raise PydanticCustomError("missing", "expected {phrase}", {"phrase": _EXPECTED, "at": (*_AT, "name")})
    for key in _BESIDE:
        if key in value:  # one place for each, so that schedules and tables of results know where to look
            raise expected(f"none here: it is train.{key}", at=(*_AT, key))
    return value


Optimizer = Annotated[OptimizerSpec, BeforeValidator(_normalise), OrText({"type": "string", "pattern": _IDENTIFIER})]
