"""Data that a user's function makes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hessdiag.spec.data.common import CommonData
from hessdiag.spec.fields import Text, expected
from hessdiag.spec.references import is_dotted_name, split_reference

__all__ = ["PythonData"]


def _function(text: str) -> str:
    if split_reference(text) is None and not is_dotted_name(text):
        raise expected('"file.py:name" (a file beside the spec) or "package.module.name"')
    return text


class PythonData(CommonData):
    """What a function returns: a Dataset, a DataLoader, or an iterable of batches."""

    format: Literal["python"] = Field(description="What a function returns.")
    path: Annotated[Text, AfterValidator(_function)] = Field(
        description='The function: "file.py:name" beside the spec, or "package.module.name".'
    )
    init_args: dict[str, Any] = Field(default={}, description="Keyword arguments of the function.")
