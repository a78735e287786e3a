"""How a checkpoint is fine-tuned: the key ``train`` of a spec."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hessdiag.spec.data import CommonData, DataSpec
from hessdiag.spec.fields import (
    Fraction,
    NonNegative,
    Positive,
    StrictModel,
    Whole0,
    Whole1,
    alternatives,
    expected,
    expecting,
    one_of,
)
from hessdiag.spec.methods import BASE_KEYS, OPTIONS, OWN_KEYS, has_key, methods_with
from hessdiag.spec.names import NoiseDistribution, TrainingMethod
from hessdiag.spec.optimizers import Optimizer, OptimizerSpec
from hessdiag.spec.schedules import ConstantSchedule, CosineSchedule, Schedule, StepSchedule

__all__ = [
    "AugmentSpec",
    "ConstantSchedule",
    "CosineSchedule",
    "OptimizerSpec",
    "Schedule",
    "StepSchedule",
    "TrainSpec",
]

_FRACTION = "a number from 0 to below 1, or a mapping with the keys of `data:` that differ"

Share = Annotated[float, Field(gt=0, lt=1), expecting("a number above 0 and below 1")]
Switch = Annotated[bool, expecting("true or false")]
Gradient = Literal["minibatch", "full"]


class AugmentSpec(StrictModel):
    """What becomes of an image each time that it is trained on."""

    crop: Whole0 = Field(default=0, description="Padded by so many pixels of 0, then cut to its size anywhere in it.")
    flip: Switch = Field(default=False, description="Mirrored left to right, half of the time.")


def _two(betas: tuple[float, ...]) -> tuple[float, ...]:
    if len(betas) != 2:
        raise expected("two numbers, as [0.9, 0.999]")
    return betas


Betas = Annotated[
    tuple[Fraction, ...],
    Field(strict=False, json_schema_extra={"minItems": 2, "maxItems": 2}),
    AfterValidator(_two),
]

_DATA_KEYS = sorted({key for kind in get_args(get_args(DataSpec)[0]) for key in get_args(kind)[0].model_fields})

Validation = Annotated[
    Annotated[float, Field(ge=0, lt=1), expecting(_FRACTION), Tag("<fraction>")] | Annotated[DataSpec, Tag("<data>")],
    Discriminator(lambda value: "<data>" if isinstance(value, (dict, CommonData)) else "<fraction>"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                {"type": "object", "propertyNames": {"enum": _DATA_KEYS}},
            ]
        }
    ),
]


def _by_method(schema: dict[str, Any]) -> None:
    """Say which method has which keys, and that none of them may be null unless that is its default."""
    properties = schema["properties"]
    schema["dependentSchemas"] = {}
    for key in (*OWN_KEYS, *BASE_KEYS):
        methods = methods_with(key)
        method = {"enum": list(methods), "description": f"One that has the key {key}."}
        condition: dict[str, Any] = {"properties": {"method": method}}
        if "nso" not in methods:  # an omitted method
            condition["required"] = ["method"]
        schema["dependentSchemas"][key] = condition
    for key in OWN_KEYS:
        properties[key].pop("default")
        if OPTIONS[methods_with(key)[0]][key] is not None:
            properties[key] |= next(kind for kind in properties[key].pop("anyOf") if kind.get("type") != "null")


class TrainSpec(StrictModel):
    """Fine-tuning from the checkpoint: the method with its options, and what all methods share."""

    model_config = ConfigDict(json_schema_extra=_by_method)

    # The other fields' validators look at it.
    method: Annotated[TrainingMethod, one_of(TrainingMethod)] = Field(default="nso", description="The training method.")

    sigma: NonNegative | None = Field(
        default=None,
        description="nso, wp-sgd: standard deviation of the noise, in units of the weights; rsam: relative to a "
        "filter's norm. Default: 0.01.",
    )
    num_perturbations: Whole1 | None = Field(
        default=None, description="nso, wp-sgd: draws of the noise in each step. Default: 1."
    )
    distribution: Annotated[NoiseDistribution, one_of(NoiseDistribution)] | None = Field(
        default=None, description="nso, wp-sgd: of the noise. Default: gaussian."
    )
    rho: NonNegative | None = Field(
        default=None,
        description="sam, asam, rsam, bsam, rsp, sap: length of the displacement. Default: 0.02; asam: 1; rsp, sap: "
        "0.05.",
    )
    smoothing: Share | None = Field(
        default=None,
        description="label-smoothing: the share of the target that is spread over all classes. Default: 0.1.",
    )
    lam: NonNegative | None = Field(
        default=None, description="rsam: weight of the gradient beside the noise. Default: 2."
    )
    damping: NonNegative | None = Field(default=None, description="bsam: added to the precisions. Default: 0.1.")
    precision: Positive | None = Field(default=None, description="bsam: of the weights, at the start. Default: 1.")
    betas: Betas | None = Field(
        default=None, description="bsam: decay of the momentum and of the precisions. Default: [0.9, 0.999]."
    )
    eps0: NonNegative | None = Field(
        default=None,
        description="rsp, sap: the gradient's norm up to which a point counts as stationary; null, the default: any.",
    )
    descent_lr: Positive | None = Field(
        default=None, description="rsp, sap: learning rate where the gradient is longer; null, the default: lr."
    )
    gradient: Annotated[Gradient, one_of(Gradient)] | None = Field(
        default=None,
        description="rsp, sap: taken over a minibatch, or over all training data. Both methods are defined on the full "
        "gradient: minibatch, the default, deviates from the paper.",
    )

    epochs: Whole1 = Field(default=30, description="Passes over the training data.")
    batch_size: Whole1 = Field(default=32, description="Examples in a minibatch.")
    lr: Positive = Field(default=0.02, description="Learning rate, at its highest.")
    schedule: Schedule = Field(default=StepSchedule(), description="Of the learning rate: its name, or with options.")
    optimizer: Optimizer = Field(
        default=OptimizerSpec(name="SGD"),
        description="What steps: the name of a class of torch.optim, or a mapping with its name and keyword arguments.",
    )
    momentum: Fraction = Field(default=0.0, description="Of the optimizer, where it has one.")
    weight_decay: NonNegative = Field(default=0.0, description="Of the optimizer; it acts at the undisturbed weights.")
    distance_l2: NonNegative = Field(
        default=0.0, description="Weight d of the penalty d/2 ||w - w0||^2 on the way from the initial weights."
    )
    clip_norm: Positive | None = Field(
        default=None, description="The longest direction that the optimizer is given; null: any."
    )
    augment: AugmentSpec | None = Field(default=None, description="Random changes of images; null: none.")
    early_stopping: Whole1 | None = Field(
        default=None, description="Stop after so many epochs without a better validation loss; null: never."
    )
    validation: Validation = Field(
        default=0.1,
        description="The fraction of the data that is not trained on (0: none); or a mapping with the keys of `data:` "
        "that differ for the validation data, which stands alone where its format is another.",
    )
    monitor_every: Whole0 = Field(default=1, description="Epochs between two measurements of sharpness; 0: never.")
    monitor_examples: Whole1 = Field(default=1000, description="Training examples on which sharpness is measured.")
    monitor_share: Share = Field(
        default=0.15, description="The most of the run's gradient passes that measuring sharpness may take."
    )
    seed: Whole0 = Field(
        default=0,
        description="Of the order of the data, their changes, and the method's noise; data.seed chooses what is "
        "validated on.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_the_methods_defaults(cls, content: Any) -> Any:
        method = content.get("method", "nso") if isinstance(content, dict) else None
        return {**OPTIONS[method], **content} if isinstance(method, str) and method in OPTIONS else content

    @field_validator(*OWN_KEYS, *BASE_KEYS, mode="before")
    @classmethod
    def _of_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a key that means nothing to the method; only written ones come here."""
        method, key = info.data.get("method"), str(info.field_name)
        if method is None:  # a faulty one is told by itself
            return value
        if not has_key(method, key):
            context = {"method": method, "methods": alternatives(methods_with(key))}
            raise PydanticCustomError("misplaced", "expected with method {methods}", context)
        default = OPTIONS[method].get(key)
        if value is None and default is not None:
            raise expected(f"a value; omitted, it is {default}")
        return value

    @field_validator("rho")
    @classmethod
    def _displaced(cls, rho: float | None, info: ValidationInfo) -> float | None:
        if rho == 0 and info.data.get("method") in ("rsp", "sap"):
            raise expected(f"a finite number greater than 0 for method {info.data['method']}")
        return rho

    @field_validator("schedule")
    @classmethod
    def _warm_before_the_end(cls, schedule: Schedule, info: ValidationInfo) -> Schedule:
        epochs = info.data.get("epochs", math.inf)
        if isinstance(schedule, CosineSchedule) and schedule.warmup >= epochs:
            raise expected(f"fewer than the {epochs} epochs of the run", at=("train", "schedule", "warmup"))
        return schedule

    @field_validator("validation")
    @classmethod
    def _something_to_stop_by(cls, validation: float | CommonData, info: ValidationInfo) -> float | CommonData:
        if validation == 0 and info.data.get("early_stopping") is not None:
            raise expected("a fraction above 0, or validation data, for early_stopping")
        return validation

    @model_serializer(mode="wrap")
    def _keys_of_the_method(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if has_key(self.method, key)}

    def method_options(self) -> dict[str, Any]:
        """The method's own options, as keyword arguments of its optimizer in :mod:`hessdiag.nso`."""
        options = {key: getattr(self, key) for key in OPTIONS[self.method] if key not in ("gradient", "smoothing")}
        if options.get("eps0", 0) is None:
            options["eps0"] = math.inf
        return options

    @property
    def monitor_sigma(self) -> float:
        """The noise scale at which the gap is monitored: the method's own, or that of nso where it has none."""
        own = self.sigma if self.method != "rsam" else None  # in units of a filter's norm
        return own or float(OPTIONS["nso"]["sigma"])

    def by_method(self, method: TrainingMethod, **own: Any) -> TrainSpec:
        """The same training by another method.

        What the other method lacks is left out, and of the methods' own keys those stay that both have with the same
        default: elsewhere, as for rho of sam and of asam, they mean lengths of different scales.

        Args:
            method: the other method.
            own: keys of ``train:`` that beat those of this spec.

        Raises:
            pydantic.ValidationError: a value out of range, or a key that the other method does not have.
        """
        mine, its = OPTIONS[self.method], OPTIONS[method]
        kept = {
            key: getattr(self, key)
            for key in type(self).model_fields
            if has_key(method, key) and (key not in its or (key in mine and mine[key] == its[key]))
        }
        return TrainSpec.model_validate({**kept, **own, "method": method})
