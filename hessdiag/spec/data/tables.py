"""Tables: columns of features and a column of targets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from hessdiag.spec.data.common import Classes, CommonData, Names, holds_labels, kind_of_names, names_expected
from hessdiag.spec.fields import OptionalText, Text, expecting

__all__ = ["CsvData", "ParquetData"]

Mark = Annotated[
    str, Field(min_length=1, max_length=1, pattern=r'^[^"\r\n]$'), expecting('one character, as ";" or "\\t"')
]

Columns = Annotated[
    Annotated[Text, Tag("<name>")]
    | Annotated[Names, Tag("<names>")]
    | Annotated[dict[str, Names], Field(min_length=1), Tag("<mapping>")],
    Discriminator(kind_of_names),
    names_expected("a column, a list of them, or a mapping from argument to a list of columns"),
]


class _TableData(CommonData):
    path: Text = Field(description="The file, relative to the spec's folder.")
    inputs: Annotated[
        Columns | None,
        Field(
            description="The columns of features, side by side (N, F) in floating point for model(x); or a mapping "
            "from argument to a list of columns, for model(**x); omitted: all but the targets.",
        ),
    ] = None
    targets: OptionalText = Field(
        default=None,
        description="The column of targets: class numbers, real numbers, or words (see `classes`); may be omitted only "
        "where the loss is `model`.",
    )
    classes: Classes | None = Field(
        default=None, description="The words of the target column, in their numbers' order."
    )

    def lacks_targets_for(self, loss: str) -> bool:
        """Whether the loss needs targets that the spec does not name."""
        return self.targets is None and (loss != "model" or holds_labels(self.inputs))


class CsvData(_TableData):
    """A text table with a line of column names."""

    format: Literal["csv"] = Field(description="A text table with a line of column names.")
    delimiter: Mark = Field(default=",", description="The character between two cells.")


class ParquetData(_TableData):
    """Parquet, read by row groups; a column may hold lists of numbers, all of one length."""

    format: Literal["parquet"] = Field(description="Parquet.")
    path: Text = Field(description="The file, or a folder of .parquet files, relative to the spec's folder.")
