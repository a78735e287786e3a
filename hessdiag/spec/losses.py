"""The losses of a spec: one small model for each, and the union that the key ``loss`` holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic_core import PydanticCustomError

from hessdiag.spec.fields import (
    AnyWhole,
    Fraction,
    OrText,
    StrictModel,
    Weights,
    alternatives,
    expected,
    name_required,
)
from hessdiag.spec.names import LossName
from hessdiag.spec.references import split_reference

__all__ = [
    "BCEWithLogitsSpec",
    "CausalLMSpec",
    "CrossEntropySpec",
    "FunctionSpec",
    "LossSpec",
    "MSESpec",
    "ModelLossSpec",
    "NLLSpec",
]

NAMES: tuple[str, ...] = get_args(LossName)
EXPECTED = f'{alternatives(NAMES)}; or "file.py:name"'

IgnoreIndex = Annotated[AnyWhole, Field(description="The target that counts for nothing.")]
Smoothing = Annotated[Fraction, Field(description="The share of the target that is spread over all classes.")]
ClassWeights = Annotated[
    Weights | None, Field(description="One weight for each class; the mean divides by the sum of the weights.")
]


class _Loss(StrictModel):
    model_config = ConfigDict(json_schema_extra=name_required)

    name: str

    def options(self) -> dict[str, Any]:
        """The options as keyword arguments, without the name."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}


class CrossEntropySpec(_Loss):
    """Softmax cross-entropy of class indices; the mean over the valid targets."""

    name: Literal["cross_entropy"] = Field(default="cross_entropy", description="The loss.")
    ignore_index: IgnoreIndex = -100
    label_smoothing: Smoothing = 0.0
    weight: ClassWeights = None


class MSESpec(_Loss):
    """Squared error; the mean over examples of the mean over output elements."""

    name: Literal["mse"] = Field(default="mse", description="The loss.")


class BCEWithLogitsSpec(_Loss):
    """Binary cross-entropy of logits."""

    name: Literal["bce_with_logits"] = Field(default="bce_with_logits", description="The loss.")
    pos_weight: Weights | None = Field(default=None, description="The weight of the positive examples of each output.")


class NLLSpec(_Loss):
    """Negative log-likelihood of a model that returns log-probabilities."""

    name: Literal["nll"] = Field(default="nll", description="The loss.")
    ignore_index: IgnoreIndex = -100
    weight: ClassWeights = None


class CausalLMSpec(_Loss):
    """Next-token cross-entropy; shifts inside; the mean over target tokens that are not ignored."""

    name: Literal["causal_lm"] = Field(default="causal_lm", description="The loss.")
    ignore_index: IgnoreIndex = -100
    label_smoothing: Smoothing = 0.0


class ModelLossSpec(_Loss):
    """The model returns its own loss: (sum, count), or an output with ``.loss``."""

    name: Literal["model"] = Field(default="model", description="The loss.")
    ignore_index: IgnoreIndex = -100


def _function(text: str) -> str:
    if split_reference(text) is None:
        raise expected('"file.py:name"')
    return text


class FunctionSpec(_Loss):
    """A user's ``loss(outputs, targets)`` that returns a vector of unit losses, or (sum, count)."""

    name: Annotated[str, AfterValidator(_function)] = Field(
        description='"file.py:name"; the file is relative to the spec.', pattern=":"
    )


def _normalise(value: Any) -> Any:
    """Turn the short form ``loss: NAME`` into ``{name: NAME}`` and refuse an unknown name."""
    if isinstance(value, _Loss):
        return value
    at = ("loss", "name") if isinstance(value, dict) else ("loss",)
    if isinstance(value, dict) and "name" not in value:
        raise PydanticCustomError("missing", "expected {phrase}", {"phrase": EXPECTED, "at": at})
    mapping = value if isinstance(value, dict) else {"name": value}
    name = mapping["name"]
    if not isinstance(name, str) or (name not in NAMES and ":" not in name):
        raise expected(EXPECTED, names=NAMES, at=at)
    return mapping


# Tags stand in the locations of pydantic's faults; no key of a spec can be mistaken for one in angle brackets.
def _tag(value: Any) -> str:
    name = value.name if isinstance(value, _Loss) else value["name"]
    return f"<{name}>" if name in NAMES else "<function>"


LossSpec = Annotated[
    Annotated[CrossEntropySpec, Tag("<cross_entropy>")]
    | Annotated[MSESpec, Tag("<mse>")]
    | Annotated[BCEWithLogitsSpec, Tag("<bce_with_logits>")]
    | Annotated[NLLSpec, Tag("<nll>")]
    | Annotated[CausalLMSpec, Tag("<causal_lm>")]
    | Annotated[ModelLossSpec, Tag("<model>")]
    | Annotated[FunctionSpec, Tag("<function>")],
    Discriminator(_tag),
    BeforeValidator(_normalise),
    OrText(
        {"enum": list(NAMES)},
        {"type": "string", "pattern": ":", "description": 'A function: "file.py:name".'},
    ),
]
