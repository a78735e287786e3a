"""The spec as frozen pydantic models; their descriptions become the JSON schema's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hessdiag.spec.audit import AuditSpec, DensitySpec, EigenvaluesSpec, GapSpec, TraceSpec
from hessdiag.spec.fields import (
    Globs,
    OptionalText,
    StrictModel,
    Text,
    Whole0,
    Whole1,
    chosen_by,
    expected,
    one_of,
)
from hessdiag.spec.losses import CrossEntropySpec, LossSpec
from hessdiag.spec.names import DataFormat
from hessdiag.spec.references import is_dotted_name, split_reference

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
