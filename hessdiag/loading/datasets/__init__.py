"""Data that a spec names, as a re-iterable of batches in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hessdiag.loading.datasets import npz
from hessdiag.spec.schema import DataSpec

__all__ = ["FORMATS", "load_data"]

FORMATS: dict[str, Callable[[DataSpec, Callable[[str], Path]], Iterable[Any]]] = {
    "npz": npz.read,
}


def load_data(spec: DataSpec, resolve: Callable[[str], Path]) -> Iterable[Any]:
    """Open the data of a spec.

    Raises:
        DataError: the data cannot be read, or are empty.
    """
    return FORMATS[spec.format](spec, resolve)
