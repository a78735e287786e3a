"""Folders of data, recognised by what they hold: pictures by class, MNIST's and CIFAR's files, graphs, datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from hessdiag.errors import DataError
from hessdiag.workflows.starter.arrays import guess_npy_folder
from hessdiag.workflows.starter.guess import DataGuess, place
from hessdiag.workflows.starter.pictures import transform_lines
from hessdiag.workflows.starter.records import Model, guess_dataset
from hessdiag.workflows.starter.tables import guess_parquet
from hessdiag.workflows.starter.text import Line

__all__ = ["guess_cifar", "guess_folder", "guess_idx"]

_PICTURES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
_MOST_ENTRIES = 1000  # looked at in one folder: ImageNet has a thousand classes, each of a thousand files
_CIFAR = ("data_batch_1", "data_batch_1.bin", "train", "train.bin")
_INNER = ("raw", "MNIST/raw", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
_TRAIN = ("train", "training", "trn")

Shown = Callable[[Path], str]
"""How a spec names a path."""


def guess_folder(folder: Path, shown: Shown, model: Model) -> DataGuess:
    """Any folder.

    Raises:
        DataError: it is none that a format reads.
    """
    for inner in (folder, *(folder / name for name in _INNER)):
        if inner.is_dir() and (guess := _known(inner, shown, model)) is not None:
            return guess
    held = ", ".join(sorted(_names(folder))[:5]) or "nothing"
    raise DataError(
        f"{shown(folder)}: found a folder of no known format (it holds {held}); expected .npy or .parquet files, IDX "
        "or CIFAR files, pictures in a folder for each class, TUDataset's text files, or what save_to_disk wrote"
    )


def _known(folder: Path, shown: Shown, model: Model) -> DataGuess | None:
    names = set(_names(folder))
    _refuse_pipes(folder, names)
    if names & {"dataset_dict.json", "dataset_info.json"}:
        return guess_dataset(folder, shown(folder), model)
    if any(name.endswith("_A.txt") for name in names):
        return _tudataset(folder, shown(folder), names)
    if any(_is_idx(name) for name in names):
        return guess_idx(folder, shown(folder))
    if names & {"batches.meta", "batches.meta.txt", "fine_label_names.txt", "meta"} and names & set(_CIFAR):
        return guess_cifar(shown(folder))
    if any(name.endswith(".parquet") for name in names):
        return guess_parquet(folder, shown(folder))
    if any(name.endswith(".npy") for name in names):
        return guess_npy_folder(folder, shown(folder))
    return _imagefolder(folder, shown(folder), model)


def _refuse_pipes(folder: Path, names: set[str]) -> None:
    for path in (folder / name for name in sorted(names)):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(
                f"{folder}: holds {path.name!r}, which is neither a file nor a folder, and whose reader may wait for "
                "ever: delete it"
            )


def guess_idx(folder: Path, shown: str) -> DataGuess:
    """MNIST's own files."""
    split = "train" if any(name.startswith("train-") for name in _names(folder)) else "test"
    normalised = [
        Line("# mean: [0.1307]", "what the network was trained with; MNIST's usual values"),
        Line("# std: [0.3081]"),
    ]
    return DataGuess([*place("idx", shown), Line(f"split: {split}", "train or test"), *normalised], "integers")


def guess_cifar(shown: str) -> DataGuess:
    """CIFAR's own files, in a folder or an archive."""
    normalised = [
        Line("mean: [0.4914, 0.4822, 0.4465]", "what the network was trained with; CIFAR-10's usual values"),
        Line("std: [0.2470, 0.2435, 0.2616]"),
    ]
    return DataGuess([*place("cifar", shown), Line("split: train", "train or test"), *normalised], "integers")


def _tudataset(folder: Path, shown: str, names: set[str]) -> DataGuess:
    graphs = any(name.endswith("_graph_labels.txt") for name in names)
    task = Line(f"task: {'graph' if graphs else 'node'}", "what is classified: graph or node")
    return DataGuess([*place("tudataset", shown), task], "integers")


def _imagefolder(folder: Path, shown: str, model: Model) -> DataGuess | None:
    """Classes in the folder itself, or in a split's."""
    split: list[Line] = []
    if not _holds_classes(folder):
        splits = [name for name in sorted(_names(folder)) if _holds_classes(folder / name)]
        if not splits:
            return None
        name = next((name for name in _TRAIN if name in splits), splits[0])
        split = [Line(f"split: {name}", f"one of {', '.join(splits)}")]
    return DataGuess([*place("imagefolder", shown), *split, *transform_lines(model.folder)], "integers")


def _holds_classes(folder: Path) -> bool:
    return folder.is_dir() and any(_holds_pictures(folder / name) for name in sorted(_names(folder))[:20])


def _holds_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(Path(name).suffix.lower() in _PICTURES for name in _names(folder))


def _is_idx(name: str) -> bool:
    return "-ubyte" in name


def _names(folder: Path) -> Iterator[str]:
    """Of the first entries, in no order."""
    try:
        with os.scandir(folder) as entries:
            yield from [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    except OSError as error:
        raise DataError(f"{folder.name}: cannot be read: {error.strerror}") from None
