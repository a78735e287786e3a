"""Crops and flips of a whole batch are those of a loop over its images, each place and each side as likely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hessdiag.curvature.keyed import keyed_generator
from hessdiag.errors import UsageError
from hessdiag.nso.augment import Augmentation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, channels: int = 2, height: int = 5, width: int = 6) -> Tensor:
    """Images no two pixels of which are equal, none 0."""
    return torch.arange(1.0, count * channels * height * width + 1).reshape(count, channels, height, width)


def looped(images: Tensor, crop: int, flip: bool, draws: torch.Generator) -> Tensor:
    """Pixel by pixel, from the same draws."""
    count, channels, height, width = images.shape
    top, left = torch.randint(0, 2 * crop + 1, (2, count), generator=draws) if crop else torch.zeros(2, count).long()
    mirrored = torch.randint(0, 2, (count,), generator=draws) if flip else torch.zeros(count)
    result = torch.zeros_like(images)
    for image in range(count):
        for row in range(height):
            for column in range(width):
                shown = width - 1 - column if mirrored[image] else column
                y, x = row + int(top[image]) - crop, shown + int(left[image]) - crop
                if 0 <= y < height and 0 <= x < width:
                    for channel in range(channels):
                        result[image, channel, row, column] = images[image, channel, y, x]
    return result


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("shape", [(7, 2, 5, 6), (1, 1, 5, 5), (3, 3, 8, 5)])
def test_as_a_loop_over_the_pixels(shape: tuple[int, ...], crop: int, flip: bool) -> None:
    images = numbered(*shape)
    given = images.clone()
    found = Augmentation(crop, flip)(images, generator())
    assert torch.equal(found, looped(images, crop, flip, generator()))
    assert torch.equal(images, given)
    assert found.shape == images.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_same_in_every_dtype_and_bit_for_bit_again(dtype: torch.dtype) -> None:
    images = torch.randn(6, 3, 8, 8, generator=generator(2)).to(dtype)
    augment = Augmentation(2, flip=True)
    found = augment(images, keyed_generator(torch.device("cpu"), 1, 2))
    assert found.dtype is dtype
    assert torch.equal(found, augment(images, keyed_generator(torch.device("cpu"), 1, 2)))
    assert torch.equal(found, augment(images.double(), keyed_generator(torch.device("cpu"), 1, 2)).to(dtype))
    assert not torch.equal(found, augment(images, keyed_generator(torch.device("cpu"), 1, 3)))


def test_every_place_and_side_is_as_likely() -> None:
    """Each of 25 places and 2 sides among 10,000 images, within 4 standard errors of a fiftieth."""
    images = numbered(1).expand(10_000, -1, -1, -1)
    found = Augmentation(2, flip=True)(images, generator())
    _, places = np.unique(found.flatten(1).numpy(), axis=0, return_inverse=True)
    counts = np.bincount(places.reshape(-1))
    assert len(counts) == 50
    assert np.abs(counts - 200).max() < 4 * np.sqrt(200 * 0.98)


def test_nothing_is_drawn_where_nothing_is_done() -> None:
    images, draws = numbered(4), generator()
    before = draws.get_state()
    assert Augmentation()(images, draws) is images
    assert torch.equal(draws.get_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_the_same_on_a_gpu() -> None:
    images = numbered(9)
    augment = Augmentation(3, flip=True)
    assert torch.equal(augment(images.cuda(), generator()).cpu(), augment(images, generator()))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (torch.zeros(32, 64), "train.augment: found with inputs that are a tensor of shape (32, 64), whose rows and"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "are whole numbers (uint8), which may be no pixels; expected one"),
        ({"pixel_values": torch.zeros(2, 3, 8, 8)}, "are a dict, of which it is not said what the images are; expec"),
        ((torch.zeros(2, 3, 8, 8),), "that are a tuple, of which"),
        (torch.zeros(2, 3, 9, 4), "train.augment.crop: found 4 with images of 9 x 4, of which nothing may be left"),
    ],
)
def test_what_are_no_images_is_refused(inputs: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Augmentation(4, flip=True)(inputs, generator())
    assert said in str(caught.value)


def test_a_crop_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.augment\.crop: found -1, expected a number of pixels of at least 0"):
        Augmentation(-1)
