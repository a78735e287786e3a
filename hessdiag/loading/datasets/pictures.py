"""One picture of a file: opened without trust, resized and cut as torchvision does, in red, green and blue."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import numpy as np

from hessdiag.errors import DataError, HessdiagError
from hessdiag.loading.extras import import_extra
from hessdiag.memory import out_of_memory
from hessdiag.spec.data import Transform

__all__ = ["EXTENSIONS", "NEEDED_BY", "Pixels", "read_picture"]

NEEDED_BY = "data.format: imagefolder"
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Named, because Pillow knows others by which a file called .png would start a program (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MOST_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb: 0.36 GB once unpacked
_LFS = b"version https://git-lfs"

Pixels = np.ndarray
"""Shape (height, width, 3), uint8."""


def read_picture(path: Path, shown: str, transform: Transform) -> Pixels:
    """Read a picture; of an animation, its first frame. EXIF's orientation is left alone.

    Args:
        path: the file.
        shown: its name in messages.
        transform: what becomes of it; its ``mean`` and ``std`` are the caller's.

    Raises:
        DataError: damaged, too large, or no picture.
    """
    image = import_extra("PIL.Image", NEEDED_BY)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep its reader waiting
            raise DataError(f"data: {shown} is no file, expected a picture")
        with path.open("rb") as file:
            return _decoded(image, file, shown, transform)
    except HessdiagError:
        raise
    except image.UnidentifiedImageError:
        raise DataError(f"data: {shown} {_what_instead(path)}") from None
    except image.DecompressionBombError as error:
        found = re.search(r"\d+ pixels", str(error))
        raise DataError(_too_large(shown, found[0] if found else "too many pixels")) from None
    except Exception as error:  # a damaged file can make a decoder stumble over anything
        if out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"data: {shown} could not be read: {error.strerror}") from None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"data: {shown} is a damaged picture ({reason}): copy it again, or delete it") from None


def _decoded(image: Any, file: Any, shown: str, transform: Transform) -> Pixels:
    with image.open(file, formats=_FORMATS) as opened:  # reads the header alone
        size = _resized(opened.size, transform.resize)
        for width, height in (opened.size, size, 2 * (transform.crop or 0,)):
            if width * height > _MOST_PIXELS:
                raise DataError(_too_large(shown, f"{width} x {height} pixels"))
        picture = opened.convert("RGB")
    if transform.resize is not None:
        picture = picture.resize(size, image.Resampling.BILINEAR)
    if transform.crop is not None:
        left, top = (_margin(length, transform.crop) for length in size)
        picture = picture.crop((left, top, left + transform.crop, top + transform.crop))
    return np.array(picture)


def _resized(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """The shorter side becomes ``side``, the longer one in proportion, rounded down."""
    if side is None or min(size) < 1:
        return size
    width, height = size
    return (side, side * height // width) if width <= height else (side * width // height, side)


def _margin(length: int, side: int) -> int:
    """Where a cut of ``side`` begins; below zero where it is longer than the picture."""
    return round((length - side) / 2) if length >= side else -((side - length) // 2)


def _too_large(shown: str, found: str) -> str:
    return (
        f"data: {shown} has {found} after unpacking, resizing and cutting, expected at most {_MOST_PIXELS}: "
        "a decompression bomb, or a picture to be cut into smaller ones first"
    )


def _what_instead(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(len(_LFS))
    if head == _LFS:
        return "is a Git LFS pointer, expected the picture itself: run git lfs pull"
    if not head:
        return "is empty (0 bytes), expected a picture: copy it again, or delete it"
    return (
        f"is no picture that can be read (it begins with {head[:8]!r}), expected {', '.join(_FORMATS[:-1])} or "
        f"{_FORMATS[-1]}: copy or convert it, or delete it"
    )
