"""The data of a spec: one small model for each format, and the union that the key ``data`` holds."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Discriminator, Tag
from pydantic_core import PydanticCustomError

from hessdiag.spec.data.arrays import NpzData, SafetensorsData
from hessdiag.spec.data.common import CommonData
from hessdiag.spec.data.graphs import TUDatasetData
from hessdiag.spec.data.images import CifarData, IdxData, ImageFolderData, Transform
from hessdiag.spec.data.python import PythonData
from hessdiag.spec.data.records import HfData, JsonlData
from hessdiag.spec.data.sklearn import SklearnData
from hessdiag.spec.data.tables import CsvData, ParquetData
from hessdiag.spec.fields import alternatives, expected
from hessdiag.spec.names import DataFormat

__all__ = [
    "CifarData",
    "CommonData",
    "CsvData",
    "DataSpec",
    "HfData",
    "IdxData",
    "ImageFolderData",
    "JsonlData",
    "NpzData",
    "ParquetData",
    "PythonData",
    "SafetensorsData",
    "SklearnData",
    "TUDatasetData",
    "Transform",
]

NAMES: tuple[str, ...] = get_args(DataFormat)


def _known(value: Any) -> Any:
    """Refuse a mapping without a known format, before the keys of some format are held against it."""
    if not isinstance(value, dict):
        return value if isinstance(value, CommonData) else _refuse_no_mapping()
    at = ("data", "format")
    if "format" not in value:
        phrase = f"the format of the data: {alternatives(NAMES)}"
        raise PydanticCustomError("missing", "expected {phrase}", {"phrase": phrase, "at": at})
    if value["format"] not in NAMES:
        raise expected(alternatives(NAMES), names=NAMES, at=at)
    return value


def _refuse_no_mapping() -> Any:
    raise expected("a mapping")


# Tags stand in the locations of pydantic's faults; no key of a spec can be mistaken for one in angle brackets.
def _tag(value: Any) -> str:
    return f"<{value.format if isinstance(value, CommonData) else value['format']}>"


DataSpec = Annotated[
    Annotated[NpzData, Tag("<npz>")]
    | Annotated[SafetensorsData, Tag("<safetensors>")]
    | Annotated[IdxData, Tag("<idx>")]
    | Annotated[CifarData, Tag("<cifar>")]
    | Annotated[ImageFolderData, Tag("<imagefolder>")]
    | Annotated[CsvData, Tag("<csv>")]
    | Annotated[ParquetData, Tag("<parquet>")]
    | Annotated[JsonlData, Tag("<jsonl>")]
    | Annotated[HfData, Tag("<hf>")]
    | Annotated[SklearnData, Tag("<sklearn>")]
    | Annotated[TUDatasetData, Tag("<tudataset>")]
    | Annotated[PythonData, Tag("<python>")],
    Discriminator(_tag),
    BeforeValidator(_known),
]
