"""Images in one array, as they lie in MNIST's and CIFAR's files, normalised batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.arrays import as_tensor, take_rows
from hessdiag.loading.datasets.examples import Rows

__all__ = ["ImageExamples"]


class ImageExamples:
    """Images and their labels: whole numbers of 8 bits become floating point from 0 to 1, less mean, over std.

    The operations are those of torchvision's ``ToTensor`` and ``Normalize``, in float32, bit for bit.

    Args:
        pixels: (N, C, H, W), or (N, F) without channels; in memory or mapped.
        labels: (N, ...).
        mean: one for each channel, or one for all; None: 0.
        std: the same; None: 1.

    Raises:
        DataError: images and labels of unequal number.
        UsageError: ``mean`` or ``std`` of another number than the channels.
    """

    def __init__(
        self, pixels: np.ndarray, labels: np.ndarray, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
    ) -> None:
        if len(pixels) != len(labels):
            raise DataError(f"data: found {len(pixels)} images and {len(labels)} labels, expected as many of both")
        self._pixels, self._labels = pixels, labels
        # Numbers of 32 bits do not fit into float32.
        self._dtype = as_tensor(np.empty(0, np.result_type(pixels.dtype, np.float32))).dtype
        self._mean, self._std = self._by_channel("mean", mean), self._by_channel("std", std)

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The rows as (images, labels)."""
        raw, labels = as_tensor(take_rows(self._pixels, rows)), as_tensor(take_rows(self._labels, rows))
        images = raw.to(self._dtype)
        if raw.dtype is torch.uint8:
            images /= 255
        if self._mean is not None:
            images = images - self._mean
        if self._std is not None:
            images = images / self._std
        return images, labels if labels.is_floating_point() else labels.to(torch.int64)

    def _by_channel(self, key: str, values: tuple[float, ...] | None) -> Tensor | None:
        if values is None:
            return None
        channels = self._pixels.shape[1] if self._pixels.ndim == 4 else 1
        if len(values) not in (1, channels):
            raise UsageError(
                f"found {len(values)} numbers, expected one for each of the {channels} channels", f"data.{key}"
            )
        trailing = (1,) * (self._pixels.ndim - 2)
        return torch.tensor(values, dtype=self._dtype).reshape(-1, *trailing)
