"""Data that a user's function makes: a Dataset, taken by number, or batches as they come."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from hessdiag.errors import DataError, HessdiagError, UsageError
from hessdiag.loading.datasets.examples import Examples, Rows
from hessdiag.loading.references import call_reference, described, import_reference
from hessdiag.memory import out_of_memory
from hessdiag.spec.data import PythonData

__all__ = ["DatasetExamples", "read"]

_KEY = "data.path"
_EXPECTED = "a Dataset, a DataLoader, or batches that can be read again (a list of them)"
_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def read(spec: PythonData, resolve: Callable[[str], Path]) -> Examples | Iterable[Any]:
    """Call the function; what is random in it is the same every time.

    Returns:
        Of a Dataset, its examples; of anything else, its batches as they come.

    Raises:
        UsageError: no such function, or it returns what holds no data, can be read once only, or is shuffled; or the
            spec says a batch size where the data come in batches.
        HessdiagError: the function raised.
    """
    function = import_reference(spec.path, resolve, _KEY)
    if not callable(function):
        raise UsageError(
            f"{spec.path} is a {type(function).__name__}, expected a function that returns {_EXPECTED}", _KEY
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        data = call_reference(_KEY, spec.path, function, resolve, **spec.init_args)
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=spec.batch_size, collate_fn=lambda examples: _collate(examples, spec.path))
    if _is_dataset(data, spec.path):
        return DatasetExamples(data, spec.path)
    if "batch_size" in spec.model_fields_set:
        raise UsageError(
            f"found {spec.batch_size} with a function that returns {_batches_of(data)}, which is batched already: "
            "leave it out, or let the function take it (data.init_args)",
            "data.batch_size",
        )
    return _AsTheyCome(data)


class DatasetExamples:
    """A map-style dataset, its examples put together as torch's DataLoader does by default; graphs as graphs are.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        shown: where it comes from, for messages.
    """

    def __init__(self, dataset: Any, shown: str) -> None:
        self.dataset, self.shown = _as_tensors(dataset), shown
        try:
            self._length = len(self.dataset)
        except Exception as error:
            raise DataError(f"{_KEY}: {shown}: its length is not known: {described(error)}") from error

    def __len__(self) -> int:
        return self._length

    def batch(self, rows: Rows) -> Any:
        """The examples ``rows`` as one batch."""
        return _collate([self._example(int(row)) for row in rows], self.shown)

    def _example(self, row: int) -> Any:
        try:
            return self.dataset[row]
        except HessdiagError:
            raise
        except Exception as error:  # whatever a user's dataset raises
            if out_of_memory(error):
                raise
            raise DataError(f"{_KEY}: {self.shown}: example {row} failed: {described(error)}") from error


class _AsTheyCome:
    """Batches of a user's object, of which nothing is asked but to be read again and again."""

    def __init__(self, source: Iterable[Any]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source)


def _is_dataset(data: Any, shown: str) -> bool:
    """Whether examples can be taken by number; refuse what is neither a dataset nor batches."""
    if data is None:
        _refuse(shown, "nothing", "see that it ends in a return")
    if isinstance(data, Iterator):
        name = type(data).__name__
        _refuse(
            shown, f"a {name}, which can be read once", "put the batches in a list, or give an object with __iter__"
        )
    if isinstance(data, DataLoader):
        _refuse_shuffling(data, shown)
        _forked_workers_only(data)
        return False
    if isinstance(data, (list, tuple)):
        if data and isinstance(data[0], (Tensor, np.ndarray)):
            _refuse(
                shown, f"a {type(data).__name__} of arrays", "return torch.utils.data.TensorDataset(inputs, targets)"
            )
        return len(data) > 0 and all(_is_graph(item) for item in data)
    if isinstance(data, Mapping):
        names = ", ".join(map(str, list(data)[:8]))
        _refuse(
            shown,
            f"a {type(data).__name__} with {names or 'nothing in it'}",
            "return one of them, or a list of batches",
        )
    if isinstance(data, (str, bytes, Tensor, np.ndarray, nn.Module, type)):
        _refuse(shown, f"a {type(data).__name__}", "return inputs with their targets")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return True
    if isinstance(data, Dataset):
        _refuse(shown, f"a {type(data).__name__} without __len__", "give it one, or make it an IterableDataset")
    if not isinstance(data, Iterable):
        _refuse(shown, f"a {type(data).__name__}", "return one of these")
    return False


def _refuse(shown: str, found: str, advice: str) -> NoReturn:
    raise UsageError(f"{shown} returned {found}, expected {_EXPECTED}: {advice}", _KEY)


def _refuse_shuffling(loader: DataLoader[Any], shown: str) -> None:
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        if isinstance(sampler, _RANDOM):
            name = type(sampler).__name__
            raise UsageError(
                f"{shown} returned a DataLoader that takes its examples at random ({name}), expected the same order on "
                "every pass: give it shuffle=False, and no random sampler",
                _KEY,
            )


def _forked_workers_only(loader: DataLoader[Any]) -> None:
    """Read in this process where workers would start anew: they cannot import the user's file by its name here."""
    context = loader.multiprocessing_context or multiprocessing
    if loader.num_workers and context.get_start_method() != "fork":
        loader.num_workers = 0
        loader.timeout = 0


def _batches_of(data: Any) -> str:
    size = getattr(data, "batch_size", None)
    return f"a {type(data).__name__}" + (f" of batch size {size}" if isinstance(size, int) else "")


def _as_tensors(dataset: Any) -> Any:
    """Let a Hugging Face dataset give tensors: of its lists of numbers a batch would be put together position-wise."""
    form = getattr(dataset, "format", None)
    plain = isinstance(form, dict) and form.get("type", "") is None and hasattr(dataset, "with_format")
    return dataset.with_format("torch") if plain else dataset


def _is_graph(example: Any) -> bool:
    """One graph of PyTorch Geometric's, and no batch of them."""
    geometric = sys.modules.get("torch_geometric.data")  # not loaded where the data hold none
    kinds = () if geometric is None else (geometric.Data, geometric.HeteroData)
    return isinstance(example, kinds) and not hasattr(example, "to_data_list")


def _collate(examples: list[Any], shown: str) -> Any:
    try:
        if _is_graph(examples[0]):
            return sys.modules["torch_geometric.data"].Batch.from_data_list(examples)
        return default_collate(examples)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise DataError(
            f"{_KEY}: {shown}: its examples cannot be put together as a batch ({described(error)}): "
            "let the dataset return tensors of one shape, or return a DataLoader with a collate_fn"
        ) from error
