"""scikit-learn's bundled datasets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hessdiag.spec.data.common import CommonData
from hessdiag.spec.fields import one_of

__all__ = ["SklearnData"]

Bundled = Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "linnerud"]


class SklearnData(CommonData):
    """A dataset that comes with scikit-learn."""

    format: Literal["sklearn"] = Field(description="A dataset that comes with scikit-learn.")
    name: Annotated[Bundled, one_of(Bundled)] = Field(description="Which one.")
    standardize: bool = Field(
        default=False, description="Whether each feature is taken less its mean, over its std, both over all examples."
    )
