"""The spec as frozen pydantic models; their descriptions become the JSON schema's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hessdiag.spec.fields import (
    Globs,
    OptionalText,
    Positive,
    StrictModel,
    Text,
    Whole0,
    Whole1,
    Whole2,
    Whole16,
    chosen_by,
    expected,
    one_of,
)
from hessdiag.spec.losses import CrossEntropySpec, LossSpec
from hessdiag.spec.names import DataFormat, Distribution, EigenvalueMethod, GapEstimator, TraceMethod
from hessdiag.spec.references import is_dotted_name, split_reference
from hessdiag.spec.sigmas import SIGMA_FORMS, check_distinct, parse_sigmas

__all__ = [
    "AuditSpec",
    "DataSpec",
    "DensitySpec",
    "EigenvaluesSpec",
    "GapSpec",
    "LossSpec",
    "ModelSpec",
    "NpzData",
    "ParametersSpec",
    "Spec",
    "TraceSpec",
    "json_schema",
]


def _class_path(text: str) -> str:
    if split_reference(text) is None and not is_dotted_name(text):
        raise expected('"file.py:name" (a file beside the spec) or "package.module.Name"')
    return text


def _with_alias(schema: dict[str, Any]) -> None:
    """Describe ``_target_``, which the parser turns into ``class_path`` before the model sees it."""
    schema["properties"]["_target_"] = {
        **schema["properties"]["class_path"],
        "description": "Another name for class_path.",
        "title": "Target",
    }
    schema["required"].remove("class_path")
    schema["oneOf"] = [{"required": ["class_path"]}, {"required": ["_target_"]}]


class ModelSpec(StrictModel):
    """The model: a factory, its arguments, and the weights."""

    model_config = ConfigDict(json_schema_extra=_with_alias)

    class_path: Annotated[Text, AfterValidator(_class_path)] = Field(
        description='What builds the model: "file.py:name" beside the spec, or "package.module.Name".'
    )
    init_args: dict[str, Any] = Field(default={}, description="Keyword arguments of the factory.")
    checkpoint: OptionalText = Field(
        default=None, description="The file with the weights, relative to the spec's folder; omitted: as built."
    )


def _kind_of_inputs(value: Any) -> str | None:
    kinds: dict[type, str] = {str: "<name>", list: "<names>", tuple: "<names>", dict: "<mapping>"}
    return kinds.get(type(value))


_INPUTS = "an array name, a list of them, or a mapping from argument to array name"

Inputs = Annotated[
    Annotated[Text, Tag("<name>")]
    | Annotated[tuple[Text, ...], Field(strict=False, min_length=1), Tag("<names>")]
    | Annotated[dict[str, Text], Field(min_length=1), Tag("<mapping>")],
    Discriminator(
        _kind_of_inputs,
        custom_error_type="expected",
        custom_error_message="expected {phrase}",
        custom_error_context={"phrase": _INPUTS},
    ),
]


class NpzData(StrictModel):
    """Arrays of a NumPy archive; the first axis counts the examples."""

    format: Annotated[DataFormat, one_of(DataFormat)] = Field(description="The format of the data: npz.")
    path: Text = Field(description="The file, relative to the spec's folder.")
    inputs: Inputs = Field(
        description="An array name, for model(x); a list of them, for model(*x); "
        "or a mapping from argument to array name, for model(**x)."
    )
    targets: OptionalText = Field(
        default=None, description="The array of targets; may be omitted only where the loss is `model`."
    )
    max_examples: Annotated[Whole1 | None, Field(description="A random subset; omitted: all.")] = None
    seed: Whole0 = Field(default=0, description="Chooses the subset; independent of --seed.")
    batch_size: Whole1 = Field(default=256, description="Examples in a batch; the results do not depend on it.")


# A further format stands here as `NpzData | CsvData`, with Field(discriminator="format") before chosen_by.
DataSpec = Annotated[NpzData, chosen_by("format", DataFormat, "data")]


class ParametersSpec(StrictModel):
    """Which parameters the Hessian is taken over: those that require grad, are included and not excluded."""

    include: Annotated[Globs, Field(min_length=1)] = Field(
        default=("*",), description="Glob patterns over parameter names."
    )
    exclude: Globs = Field(default=(), description="Glob patterns over parameter names.")


class EigenvaluesSpec(StrictModel):
    """Extreme eigenvalues."""

    top: Whole1 = Field(default=5, description="How many from the algebraically largest down.")
    bottom: Whole0 = Field(default=1, description="How many from the algebraically smallest up.")
    method: Annotated[EigenvalueMethod, one_of(EigenvalueMethod)] = Field(
        default="lanczos", description="How they are found."
    )
    rtol: Positive = Field(default=1e-3, description="Residual at most rtol times the largest |eigenvalue| found.")
    max_matvecs: Whole1 = Field(default=500, description="The most Hessian-vector products.")


class TraceSpec(StrictModel):
    """The trace, whole and by parameter group."""

    method: Annotated[TraceMethod, one_of(TraceMethod)] = Field(default="auto", description="How it is estimated.")
    rtol: Positive = Field(
        default=0.05, description="Stop when the half-width of the 95 % interval is at most rtol times |value|."
    )
    max_matvecs: Whole2 = Field(default=2000, description="The most Hessian-vector products.")


def _read_sigma(value: Any) -> Any:
    if isinstance(value, str):
        return parse_sigmas(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise expected(SIGMA_FORMS)
    return value


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    check_distinct(values)
    return values


_SCALE = r"\s*\+?[0-9.]+([eE][-+]?[0-9]+)?\s*"
_SCALE_SCHEMA = {"type": "number", "exclusiveMinimum": 0}

Sigmas = Annotated[
    tuple[Positive, ...],
    Field(strict=False, min_length=1),
    AfterValidator(_distinct),
    BeforeValidator(_read_sigma),
    WithJsonSchema(
        {
            "anyOf": [
                _SCALE_SCHEMA,
                {"type": "array", "items": _SCALE_SCHEMA, "minItems": 1, "uniqueItems": True},
                {"type": "string", "pattern": f"^{_SCALE}(:{_SCALE}:\\s*[0-9]+\\s*|(,{_SCALE})*)$"},
            ],
        }
    ),
]


class GapSpec(StrictModel):
    """The noise gap F(W) - f(W) against sigma^2/2 Tr[H]."""

    sigma: Sigmas = Field(
        default=(0.008, 0.01, 0.012),
        description='Noise scales, in units of the weights: a number, a list, "start:stop:count", "0.02,0.03".',
    )
    draws: Whole2 = Field(default=100, description="Noise draws at each scale.")
    estimator: Annotated[GapEstimator, one_of(GapEstimator)] = Field(
        default="two-sided", description="(f(W+U) + f(W-U))/2 - f(W), or f(W+U) - f(W)."
    )
    distribution: Annotated[Distribution, one_of(Distribution)] = Field(
        default="gaussian", description="The noise; each has variance sigma^2."
    )


class DensitySpec(StrictModel):
    """The spectral density by stochastic Lanczos quadrature."""

    steps: Whole2 = Field(default=80, description="Lanczos steps for each probe.")
    probes: Whole1 = Field(default=4, description="Random probes.")
    points: Whole16 = Field(default=256, description="Points of the grid on which the density is given.")


class AuditSpec(StrictModel):
    """What is measured; null skips a part."""

    eigenvalues: EigenvaluesSpec | None = Field(default=EigenvaluesSpec(), description="Extreme eigenvalues.")
    trace: TraceSpec | None = Field(default=TraceSpec(), description="The trace.")
    gap: GapSpec | None = Field(default=GapSpec(), description="The noise gap.")
    density: DensitySpec | None = Field(default=None, description="The spectral density; omitted: skipped.")


class Spec(StrictModel):
    """A whole spec. File references stay as written; ``resolve`` finds them."""

    model: ModelSpec = Field(description="The model and its weights.")
    data: DataSpec = Field(description="The data on which the loss is taken.")
    loss: LossSpec = Field(
        default=CrossEntropySpec(),
        validate_default=True,  # or _targets_for_loss would pass over an omitted loss
        description="The loss: its name, or its name and options.",
    )
    parameters: ParametersSpec = Field(default=ParametersSpec(), description="The parameters that are measured.")
    audit: AuditSpec = Field(default=AuditSpec(), description="What is measured.")

    _folder: Path = PrivateAttr(default_factory=Path)

    @property
    def folder(self) -> Path:
        """The folder of the spec file, from which relative names start."""
        return self._folder

    def resolve(self, name: str | Path) -> Path:
        """Where a file named in the spec lies: ``~`` expanded, relative names from the spec's folder.

        Raises:
            RuntimeError: ``name`` starts with the home folder of a user who does not exist.
        """
        return self._folder / Path(name).expanduser()

    @field_validator("loss")
    @classmethod
    def _targets_for_loss(cls, loss: LossSpec, info: ValidationInfo) -> LossSpec:
        """Ask for targets, unless the model computes its own loss.

        A validator of this field rather than of the whole, so that faults elsewhere do not hide it.
        """
        data = info.data.get("data")
        if data is not None and data.targets is None and loss.name != "model":
            phrase = f"the name of the array that the loss {loss.name} compares outputs with"
            raise PydanticCustomError("missing", "expected {phrase}", {"phrase": phrase, "at": ("data", "targets")})
        return loss


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec as its user writes it, for editors."""
    schema = Spec.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:hessdiag:spec:1"}
    return {**head, **schema, "title": "hessdiag spec"}
