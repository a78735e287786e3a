"""The spec as frozen pydantic models; their descriptions become the JSON schema's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hessdiag.spec.audit import AuditSpec, DensitySpec, EigenvaluesSpec, GapSpec, TraceSpec
from hessdiag.spec.data import CommonData, DataSpec
from hessdiag.spec.fields import Globs, OptionalText, StrictModel, Text, expected, one_of
from hessdiag.spec.losses import CrossEntropySpec, LossSpec
from hessdiag.spec.names import Adapter, Weights
from hessdiag.spec.references import is_dotted_name, split_reference
from hessdiag.spec.train import TrainSpec

__all__ = [
    "AuditSpec",
    "DataSpec",
    "DensitySpec",
    "EigenvaluesSpec",
    "GapSpec",
    "LossSpec",
    "ModelSpec",
    "ParametersSpec",
    "Spec",
    "TraceSpec",
    "TrainSpec",
    "json_schema",
]


def _class_path(text: str) -> str:
    if split_reference(text) is None and not is_dotted_name(text):
        raise expected('"file.py:name" (a file beside the spec) or "package.module.Name"')
    return text


def _with_alias(schema: dict[str, Any]) -> None:
    """Describe ``_target_``, which the parser turns into ``class_path`` before the model sees it."""
    properties = schema["properties"]
    text = next(kind for kind in properties["class_path"].pop("anyOf") if kind["type"] != "null")
    properties["class_path"] |= text
    properties["class_path"].pop("default")
    properties["_target_"] = {
        **properties["class_path"],
        "description": "Another name for class_path.",
        "title": "Target",
    }
    whole = {"description": "A checkpoint that holds its network too.", "not": {"pattern": r"\.safetensors$"}}
    itself = {"required": ["checkpoint"], "properties": {"checkpoint": whole}}
    neither = {"not": {"anyOf": [{"required": ["class_path"]}, {"required": ["_target_"]}]}}
    schema["oneOf"] = [{"required": ["class_path"]}, {"required": ["_target_"]}, {"allOf": [itself, neither]}]


_CLASS_PATH = 'what builds the model: "file.py:name" beside the spec, or "package.module.Name"'


class ModelSpec(StrictModel):
    """The model: a factory, its arguments, and the weights."""

    model_config = ConfigDict(json_schema_extra=_with_alias)

    # Before class_path, whose validator looks at it.
    checkpoint: OptionalText = Field(
        default=None,
        description="The file or folder with the weights, relative to the spec's folder; omitted: as built.",
    )
    class_path: Annotated[Text, AfterValidator(_class_path)] | None = Field(
        default=None,
        validate_default=True,
        description=f"W{_CLASS_PATH[1:]}; omitted: the checkpoint says it, as a Hugging Face folder does.",
    )
    init_args: dict[str, Any] = Field(default={}, description="Keyword arguments of the factory.")
    weights: Annotated[Weights, one_of(Weights)] = Field(
        default="model", description="Which of the checkpoint's weights: those trained, or their moving average."
    )
    adapter: Annotated[Adapter, one_of(Adapter)] = Field(
        default="only",
        description="Of an adapter: its weights alone, or all weights with the adapter merged into them.",
    )
    base: OptionalText = Field(
        default=None, description="Of an adapter: the folder of its base model; omitted: as the adapter names it."
    )
    trained: OptionalText = Field(
        default=None,
        description="Weights that are put over those of a checkpoint that brings its network, as training left them.",
    )

    @field_validator("class_path")
    @classmethod
    def _built_by_something(cls, class_path: str | None, info: ValidationInfo) -> str | None:
        """Ask for a factory, unless there is a checkpoint that may hold an architecture too."""
        checkpoint = info.data.get("checkpoint", "")  # a faulty one is told by itself
        if class_path is None and (checkpoint is None or checkpoint.lower().endswith(".safetensors")):
            raise PydanticCustomError(
                "missing", "expected {phrase}", {"phrase": _CLASS_PATH, "at": ("model", "class_path")}
            )
        return class_path


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
    train: TrainSpec = Field(default=TrainSpec(), description="How `hessdiag nso train` fine-tunes the checkpoint.")

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

    def files(self) -> list[Path]:
        """The files and folders that are measured: the checkpoint and the data."""
        named = (self.model.checkpoint, self.model.trained, getattr(self.data, "path", None))
        return [self.resolve(name) for name in named if name is not None]

    def validation_data(self) -> DataSpec | None:
        """The validation data of ``train``, whole; None where they are a fraction of the data."""
        own = self.train.validation
        return own if isinstance(own, CommonData) else None

    @field_validator("loss")
    @classmethod
    def _targets_for_loss(cls, loss: LossSpec, info: ValidationInfo) -> LossSpec:
        """Ask for targets, unless the model computes its own loss.

        A validator of this field rather than of the whole, so that faults elsewhere do not hide it.
        """
        data = info.data.get("data")
        if data is not None:
            _check_targets(data, loss, ("data", "targets"))
        return loss

    @field_validator("train")
    @classmethod
    def _for_loss(cls, train: TrainSpec, info: ValidationInfo) -> TrainSpec:
        """Ask for the validation data's targets, and for a loss that can be smoothed where that is the method."""
        loss = info.data.get("loss")
        if loss is None:
            return train
        if isinstance(train.validation, CommonData):
            _check_targets(train.validation, loss, ("train", "validation", "targets"))
        if train.method == "label-smoothing" and "label_smoothing" not in loss.options():
            raise expected(f"another method: the loss {loss.name} has no label_smoothing", at=("train", "method"))
        return train


def _check_targets(data: CommonData, loss: LossSpec, at: tuple[str, ...]) -> None:
    """Refuse data without the targets that a loss needs."""
    if data.lacks_targets_for(loss.name):
        phrase = f"the name of what the loss {loss.name} compares outputs with"
        if loss.name == "model":
            phrase = "the name of the labels here, not among the inputs: the model is given them all the same"
        raise PydanticCustomError("missing", "expected {phrase}", {"phrase": phrase, "at": at})


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec as its user writes it, for editors."""
    schema = Spec.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:hessdiag:spec:1"}
    return {**head, **schema, "title": "hessdiag spec"}
