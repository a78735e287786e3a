"""Data that a spec names, as a re-iterable of batches in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hessdiag.errors import DataError, UsageError
from hessdiag.files import neither_file_nor_folder
from hessdiag.loading.datasets import (
    cifar,
    csv,
    hf,
    idx,
    imagefolder,
    jsonl,
    npz,
    parquet,
    python,
    safetensors,
    sklearn,
    tudataset,
)
from hessdiag.loading.datasets.examples import Batches, Examples, choose_subset
from hessdiag.spec.schema import DataSpec

__all__ = ["FORMATS", "load_data"]

Resolve = Callable[[str], Path]

FORMATS: dict[str, Callable[[Any, Resolve], Examples | Iterable[Any]]] = {
    "cifar": cifar.read,
    "csv": csv.read,
    "hf": hf.read,
    "idx": idx.read,
    "imagefolder": imagefolder.read,
    "jsonl": jsonl.read,
    "npz": npz.read,
    "parquet": parquet.read,
    "python": python.read,
    "safetensors": safetensors.read,
    "sklearn": sklearn.read,
    "tudataset": tudataset.read,
}
"""By format, what opens the data: examples by number, or batches as a user's function makes them."""


def load_data(spec: DataSpec, resolve: Resolve) -> Iterable[Any]:
    """Open the data of a spec.

    Returns:
        A re-iterable of batches, the same ones in the same order on every pass.

    Raises:
        DataError: the data cannot be read, or are empty.
        UsageError: they lack what the spec names.
        MissingExtraError: a package that the format needs is not installed.
    """
    for key in ("path", "tokenizer"):
        _refuse_pipes(spec, key, resolve)
    data = FORMATS[spec.format](spec, resolve)
    if not isinstance(data, Examples):
        if spec.max_examples is not None:
            raise UsageError(
                "found with a function that returns batches, of which no subset can be taken, expected none: "
                "let the function return a Dataset, or take the subset itself",
                "data.max_examples",
            )
        return data
    if len(data) == 0:
        raise DataError(f"data: {getattr(spec, 'path', spec.format)} holds no examples, expected at least one")
    return Batches(data, choose_subset(len(data), spec.max_examples, spec.seed), spec.batch_size)


def _refuse_pipes(spec: DataSpec, key: str, resolve: Resolve) -> None:
    """Before any reader waits for what nobody writes; pictures are many, and looked at one by one."""
    name = getattr(spec, key, None)
    if name is None or spec.format in ("imagefolder", "python"):
        return
    if odd := neither_file_nor_folder(resolve(name)):
        raise DataError(
            f"data.{key}: {name} holds {odd.name!r}, which is neither a file nor a folder, and whose reader may wait "
            "for ever: delete it"
        )
