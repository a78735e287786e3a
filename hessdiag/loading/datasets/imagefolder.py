"""Pictures in one folder for each class: numbered as torchvision does, decoded a batch at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.pictures import EXTENSIONS, NEEDED_BY, Pixels, read_picture
from hessdiag.loading.datasets.room import check_room
from hessdiag.loading.extras import import_extra
from hessdiag.spec.data import ImageFolderData, Transform

__all__ = ["PictureExamples", "read"]

_SPLITS = frozenset({"test", "testing", "train", "training", "val", "valid", "validation"})


def read(spec: ImageFolderData, resolve: Callable[[str], Path]) -> PictureExamples:
    """Find the pictures and their classes; none is decoded yet. Names that begin with a dot are passed over.

    Raises:
        MissingExtraError: Pillow is not installed.
        UsageError: no such split.
        DataError: no class folders, or one without pictures.
    """
    import_extra("PIL.Image", NEEDED_BY)
    folder = resolve(spec.path)
    shown = spec.path if spec.split is None else f"{spec.path}/{spec.split}"
    try:
        root = folder if spec.split is None else _split(folder, spec.split, spec.path)
        classes = _classes(root, shown, told_split=spec.split is not None)
        files = [_pictures_in(root / name, folder) for name in classes]
    except OSError as error:
        raise DataError(f"data.path: {error.filename or shown} could not be read: {error.strerror or error}") from None
    _refuse_empty([name for name, found in zip(classes, files, strict=True) if not found], len(classes), shown)
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    return PictureExamples(folder, spec.path, [file for found in files for file in found], labels, spec.transform)


class PictureExamples:
    """Pictures (3, height, width), float32, with the numbers of their classes.

    Args:
        folder: where they lie.
        shown: the folder's name in messages.
        files: their names, from the folder.
        labels: the class of each, shape (N,).
        transform: what becomes of them.
    """

    def __init__(self, folder: Path, shown: str, files: list[str], labels: np.ndarray, transform: Transform) -> None:
        self._folder, self._shown, self._files = folder, shown, files
        self._labels, self._transform = labels, transform
        self._first: tuple[str, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Decode the pictures ``rows``; the first that is ever read tells the size of all."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on metadata that are not used
            height, width, channels = self._first[1] if self._first else self._read(rows[0]).shape
            check_room(
                4 * len(rows) * channels * height * width,
                f"data: a batch of {len(rows)} pictures of {width} x {height}",
                "lower data.batch_size, or set data.transform.resize and data.transform.crop",
            )
            images = torch.empty(len(rows), channels, height, width, dtype=torch.float32)
            for image, row in zip(images, rows, strict=True):
                image.copy_(torch.from_numpy(self._read(row)).permute(2, 0, 1))
        return _normalised(images, self._transform), torch.from_numpy(self._labels[rows])

    def _read(self, row: int) -> Pixels:
        shown = os.path.join(self._shown, self._files[row])
        pixels = read_picture(self._folder / self._files[row], shown, self._transform)
        name, shape = self._first = self._first or (shown, pixels.shape)
        if pixels.shape != shape:
            raise DataError(
                f"data: found pictures of several sizes ({name} {shape[1]} x {shape[0]}, {shown} {pixels.shape[1]} x "
                f"{pixels.shape[0]}), expected one size for all: set data.transform.resize and data.transform.crop"
            )
        return pixels


def _normalised(images: Tensor, transform: Transform) -> Tensor:
    """Bytes to numbers from 0 to 1, then less the mean, over the deviation."""
    images.mul_(1 / 255)
    if transform.mean is not None:
        images.sub_(torch.tensor(transform.mean, dtype=torch.float32).view(-1, 1, 1))
    if transform.std is not None:
        images.div_(torch.tensor(transform.std, dtype=torch.float32).view(-1, 1, 1))
    return images


def _split(folder: Path, split: str, shown: str) -> Path:
    if (folder / split).is_dir():
        return folder / split
    raise UsageError(
        f"found no folder {split!r} in {shown}, expected one of: {', '.join(_folders(folder)) or 'none is there'}",
        "data.split",
    )


def _classes(root: Path, shown: str, *, told_split: bool) -> list[str]:
    """The names of the class folders; a class's number is its place."""
    names = _folders(root)
    if not names:
        pictures = any(map(_is_picture, os.listdir(root)))
        found = "pictures, but no folders" if pictures else "no folders"
        raise DataError(f"data.path: {shown} holds {found}, expected one folder of pictures for each class")
    if not told_split and _SPLITS.issuperset(name.lower() for name in names):
        found = ", ".join(names)
        raise UsageError(
            f"missing: {shown} holds {found}, which are splits, not classes: name one of them", "data.split"
        )
    return names


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")  # "._cat.jpg" is a Mac's, and no picture


def _pictures_in(folder: Path, start: Path) -> list[str]:
    """The pictures in a folder and below it, named from ``start``: folders by whole name, files in each by name."""
    found = [(os.path.relpath(root, start), sorted(filter(_is_picture, files))) for root, files in _walk(folder)]
    return [os.path.join(root, name) for root, names in sorted(found) for name in names]


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, through links too, each once: links may lead in circles."""
    visited = set()
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield root, files


def _raise(error: OSError) -> None:
    raise error


def _refuse_empty(names: list[str], classes: int, shown: str) -> None:
    if names:
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise DataError(
            f"data.path: of the {classes} folders in {shown}, {len(names)} without pictures ({first}) would shift the "
            f"numbers of the classes after them: delete what is no class (pictures are files *{', *'.join(EXTENSIONS)})"
        )
