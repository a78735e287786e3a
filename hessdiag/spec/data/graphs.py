"""Graphs: the raw text files of TUDataset."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hessdiag.spec.data.common import CommonData, Inputs
from hessdiag.spec.fields import OptionalText, Text, one_of

__all__ = ["TUDatasetData"]

Task = Literal["graph", "node"]
Features = Literal["auto", "attributes", "labels", "degree", "constant"]


class TUDatasetData(CommonData):
    """A folder of TUDataset's text files; an example is a graph, `edge_attr` all that the files say of the edges."""

    format: Literal["tudataset"] = Field(description="A folder of TUDataset's text files.")
    path: Text = Field(
        description="The folder with NAME_A.txt (or with NAME or raw in it that has it), relative to the spec's folder."
    )
    name: OptionalText = Field(default=None, description="NAME of the files; omitted: the one that the folder holds.")
    task: Annotated[Task, one_of(Task)] = Field(
        default="graph",
        description="What has the targets: a graph (its label; its attributes, where the files have no labels), or a "
        "node (its label). Classes count from 0 in the order of the labels.",
    )
    features: Annotated[Features, one_of(Features)] = Field(
        default="auto",
        description="Of the nodes: their attributes, their labels (one-hot), their degree (one-hot), or a constant 1; "
        "auto: attributes and labels where the files have them (of labelled nodes, their attributes), else the degree.",
    )
    inputs: Inputs | None = Field(
        default=None,
        description="Which of a batch's x, edge_index, edge_attr, batch the model is called with; "
        "omitted: the batch itself, for model(batch).",
    )
