"""Images: MNIST's and CIFAR's own files, and folders of pictures by class."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hessdiag.spec.data.common import CommonData
from hessdiag.spec.fields import Finite, OptionalText, Positive, StrictModel, Text, Whole1, expected, one_of

__all__ = ["CifarData", "IdxData", "ImageFolderData", "Transform"]

Means = Annotated[tuple[Finite, ...], Field(strict=False, min_length=1)]
Deviations = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
Side = Annotated[Literal["train", "test"], one_of(Literal["train", "test"])]


class _Normalised(CommonData):
    """Pixels from 0 to 1, less ``mean``, over ``std``, by channel."""

    path: Text = Field(description="The folder or archive, relative to the spec's folder.")
    mean: Means | None = Field(
        default=None, description="Taken from the pixels (0 to 1): one for each channel, or one for all."
    )
    std: Deviations | None = Field(
        default=None, description="The pixels are divided by it: one for each channel, or one for all."
    )


class IdxData(_Normalised):
    """MNIST's own files, gzipped or not: images (1, H, W) from 0 to 1; numbers wider than bytes stay as they are."""

    format: Literal["idx"] = Field(description="IDX files, as MNIST's.")
    path: Text = Field(description="The folder with the files, relative to the spec's folder.")
    split: Side = Field(default="train", description="train (train-*) or test (t10k-*).")
    inputs: OptionalText = Field(
        default=None,
        description="The file of images, as emnist-letters-test-images-idx3-ubyte.gz; omitted: by the split.",
    )
    targets: OptionalText = Field(default=None, description="The file of labels; omitted: by the split.")


class CifarData(_Normalised):
    """CIFAR-10 or CIFAR-100, binary or python version, archive or folder: images (3, 32, 32)."""

    format: Literal["cifar"] = Field(description="CIFAR's own files.")
    path: Text = Field(
        description="The .tar.gz archive, or the folder with the files or with the folder that it unpacks to, relative "
        "to the spec's folder."
    )
    split: Side = Field(default="train", description="train or test.")
    labels: Annotated[Literal["fine", "coarse"], one_of(Literal["fine", "coarse"])] = Field(
        default="fine", description="Of CIFAR-100: the 100 classes, or the 20 superclasses."
    )


def _one_or_three(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if values is not None and len(values) not in (1, 3):
        raise expected("three numbers (pictures are read as RGB), or one for all channels")
    return values


class Transform(StrictModel):
    """What becomes of a picture: its shorter side resized, the centre cut out, normalised by channel."""

    resize: Whole1 | None = Field(default=None, description="The length of the shorter side, in pixels.")
    crop: Whole1 | None = Field(
        default=None,
        description="The side of the square that is cut out of the centre; where a picture is smaller, it is filled up "
        "with black.",
    )
    mean: Annotated[Means | None, AfterValidator(_one_or_three)] = Field(
        default=None, description="Taken from the pixels (0 to 1): one for each of red, green and blue, or one for all."
    )
    std: Annotated[Deviations | None, AfterValidator(_one_or_three)] = Field(
        default=None, description="The pixels are divided by it: one for each of red, green and blue, or one for all."
    )


class ImageFolderData(CommonData):
    """Pictures in one folder for each class; the classes are numbered by name, and every picture is read as RGB."""

    format: Literal["imagefolder"] = Field(description="Pictures in one folder for each class.")
    path: Text = Field(description="The folder, relative to the spec's folder.")
    split: OptionalText = Field(default=None, description="The folder in it that holds the classes, as `val`.")
    transform: Transform = Field(default=Transform(), description="What becomes of a picture.")
