"""Records by field: texts for a tokenizer, or numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from hessdiag.spec.data.common import Classes, CommonData, Inputs, holds_labels
from hessdiag.spec.fields import OptionalText, Text, Whole1, expected

__all__ = ["HfData", "JsonlData"]


class _RecordsData(CommonData):
    path: Text = Field(description="The file or folder, relative to the spec's folder.")
    inputs: Inputs = Field(
        description="A field name, a list of them (with a tokenizer: a text, or a pair of texts), "
        "or a mapping from argument to field name."
    )
    targets: OptionalText = Field(
        default=None,
        description="The field of targets; may be omitted where the loss is `model`, or `causal_lm` of texts.",
    )
    classes: Classes | None = Field(default=None, description="The words of the target field, in their numbers' order.")
    tokenizer: OptionalText = Field(
        default=None, description="The folder of a tokenizer, or of a model with one, relative to the spec's folder."
    )
    max_length: Whole1 | None = Field(default=None, description="Longer texts are cut there, in tokens.")

    @field_validator("tokenizer")
    @classmethod
    def _of_texts(cls, tokenizer: str | None, info: ValidationInfo) -> str | None:
        """A tokenizer takes a text or a pair, and names the model's arguments itself."""
        inputs = info.data.get("inputs")
        if tokenizer is not None and (isinstance(inputs, dict) or (isinstance(inputs, tuple) and len(inputs) > 2)):
            raise expected("the name of a field of texts, or a list of two, beside a tokenizer", at=("data", "inputs"))
        return tokenizer

    @field_validator("max_length")
    @classmethod
    def _with_tokenizer(cls, max_length: int | None, info: ValidationInfo) -> int | None:
        if max_length is not None and "tokenizer" in info.data and info.data["tokenizer"] is None:
            raise expected("none without a tokenizer")
        return max_length

    def lacks_targets_for(self, loss: str) -> bool:
        """Whether the loss needs targets that the spec does not name."""
        if self.targets is not None:
            return False
        if loss == "model":
            return holds_labels(self.inputs)
        return loss != "causal_lm" or self.tokenizer is None


class JsonlData(_RecordsData):
    """One JSON object on each line."""

    format: Literal["jsonl"] = Field(description="One JSON object on each line.")


class HfData(_RecordsData):
    """A Hugging Face dataset on disk: what save_to_disk wrote, or parquet, json or csv files."""

    format: Literal["hf"] = Field(description="A Hugging Face dataset on disk.")
    split: OptionalText = Field(default=None, description="Which of the dataset's splits, as `validation`.")
