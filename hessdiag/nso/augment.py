"""Random crops and flips of a whole batch of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import UsageError

__all__ = ["Augmentation"]

_KEY = "train.augment"


@dataclass(frozen=True)
class Augmentation:
    """Each image moved by up to ``crop`` pixels along either axis, zeros coming in, and mirrored in half of the cases.

    Cut out of the image with a border of ``crop`` zeros around it, at any of the (2 crop + 1)^2 places alike; then its
    left and right change places with probability 1/2. The zeros are in the units of what the model gets: where the
    data are normalised, the mean and not black.

    Args:
        crop: pixels; 0: images stay where they are.
        flip: whether images are mirrored.

    Raises:
        UsageError: a number of pixels below 0.
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise UsageError(f"found {self.crop}, expected a number of pixels of at least 0", f"{_KEY}.crop")

    def __call__(self, images: Any, generator: torch.Generator) -> Tensor:
        """New images of the same shape; those given stay as they are.

        Args:
            images: (B, C, H, W), floating point, on any device.
            generator: on the CPU, so that the draws are the same on every device.

        Raises:
            UsageError: inputs of another kind, or images that are no larger than ``crop``.
        """
        images = _checked(images, self.crop)
        if self.crop:
            images = _cropped(images, self.crop, generator)
        return _flipped(images, generator) if self.flip else images


def _checked(images: Any, crop: int) -> Tensor:
    reason = None
    if not isinstance(images, Tensor):
        reason = f"a {type(images).__name__}, of which it is not said what the images are"
    elif images.ndim != 4:
        reason = f"a tensor of shape {tuple(images.shape)}, whose rows and columns of pixels are not known"
    elif not images.is_floating_point():
        reason = f"whole numbers ({str(images.dtype).removeprefix('torch.')}), which may be no pixels"
    if reason is not None:
        raise UsageError(
            f"found with inputs that are {reason}; expected one tensor (B, C, H, W) in floating point: leave it out, "
            "or let the data give such images",
            _KEY,
        )
    if crop >= min(images.shape[2:]):
        height, width = images.shape[2:]
        raise UsageError(
            f"found {crop} with images of {height} x {width}, of which nothing may be left, expected fewer pixels "
            "than the shorter side has",
            f"{_KEY}.crop",
        )
    return images  # type: ignore[no-any-return]


def _cropped(images: Tensor, crop: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    top, left = torch.randint(0, 2 * crop + 1, (2, count), generator=generator).to(images.device)
    # A view with all places to cut at: (B, C, 2 crop + 1, 2 crop + 1, H, W), of which one is copied for each image.
    windows = nn.functional.pad(images, [crop] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).bool().to(images.device)
    return torch.where(mirrored, images.flip(3), images)
