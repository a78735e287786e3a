"""Arrays by name, the first axis of each counting the examples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hessdiag.spec.data.common import CommonData, Inputs, holds_labels
from hessdiag.spec.fields import OptionalText, Text

__all__ = ["NpzData", "SafetensorsData"]


class _ArraysData(CommonData):
    path: Text = Field(description="The file, relative to the spec's folder.")
    inputs: Inputs = Field(
        description="An array name, for model(x); a list of them, for model(*x); "
        "or a mapping from argument to array name, for model(**x)."
    )
    targets: OptionalText = Field(
        default=None, description="The array of targets; may be omitted only where the loss is `model`."
    )

    def lacks_targets_for(self, loss: str) -> bool:
        """Whether the loss needs targets that the spec does not name."""
        return self.targets is None and (loss != "model" or holds_labels(self.inputs))


class NpzData(_ArraysData):
    """Arrays of a NumPy archive, or of a folder of .npy files."""

    format: Literal["npz"] = Field(description="NumPy arrays.")
    path: Text = Field(
        description="The .npz file, or a folder whose .npy files are the arrays, relative to the spec's folder."
    )


class SafetensorsData(_ArraysData):
    """Tensors of a safetensors file."""

    format: Literal["safetensors"] = Field(description="A safetensors file.")
