"""Hugging Face datasets on disk, through the ``datasets`` library: mapped into memory, never from the hub."""

from __future__ import annotations

import gc
import shutil
import tempfile
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hessdiag.errors import DataError, HessdiagError, UsageError
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.hf_splits import choose_split, find_splits
from hessdiag.loading.datasets.records import RecordExamples
from hessdiag.loading.extras import import_extra
from hessdiag.memory import out_of_memory
from hessdiag.spec.data import HfData

__all__ = ["read"]


def read(spec: HfData, resolve: Callable[[str], Path]) -> RecordExamples:
    """The rows of a split, as examples.

    Raises:
        DataError: damaged, or holding something else than what is expected.
        UsageError: a split or a column that the spec names is not there, or several splits and none is named.
        MissingExtraError: datasets is not installed.
    """
    library = import_extra("datasets", "data.format: hf")
    opener = choose_split(find_splits(resolve(spec.path), spec.path), spec.split, spec.path)
    shown = spec.path if spec.split is None else f"{spec.path} ({spec.split})"
    scratch = Path(tempfile.mkdtemp(prefix="hessdiag-"))
    try:
        with _quiet(library), _damage_told(shown):
            dataset = opener(library, scratch)
            dataset.data.validate()  # buffers as long as they should be; their content as it is read
        rows = _DatasetRows(library, dataset, shown, names_of_classes=spec.classes is not None)
        if any(scratch.iterdir()):
            weakref.finalize(rows, shutil.rmtree, scratch, ignore_errors=True)
        else:  # mapped where it lies
            scratch.rmdir()
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return RecordExamples(rows, spec, resolve)


class _DatasetRows:
    """The rows of a ``datasets.Dataset`` as records; a number of a class as its name, where that is wanted."""

    def __init__(self, library: Any, dataset: Any, shown: str, *, names_of_classes: bool) -> None:
        self.shown = shown
        self._dataset = dataset.with_format("arrow")
        self._classes: dict[str, list[str]] = {}
        self._pictures = {name for name, feature in dataset.features.items() if hasattr(feature, "decode_example")}
        if names_of_classes:
            labels = {n: f for n, f in dataset.features.items() if isinstance(f, library.ClassLabel)}
            self._classes = {name: list(feature.names) for name, feature in labels.items()}

    def __len__(self) -> int:
        return len(self._dataset)

    def names(self) -> Sequence[str]:
        return list(self._dataset.column_names)

    def place(self, row: int) -> str:
        return f"{self.shown}, row {row} (from 0)"

    def kinds(self, names: Sequence[str]) -> Mapping[str, str]:
        schema = self._dataset.data.schema
        return {name: _kind(schema.field(name).type) for name in names}

    def take(self, rows: Rows, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for name in self._pictures.intersection(names):
            raise UsageError(
                f"found pictures or sound in column {name!r} of {self.shown}, expected texts or numbers: read pictures "
                "by data.format: imagefolder, anything by data.format: python",
                "data.inputs",
            )
        chosen = self._dataset.select_columns(sorted(set(names)))
        for stretch in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            for batch in self._checked(chosen, int(stretch[0]), int(stretch[-1]) + 1):
                for place in range(batch.num_rows):
                    with _damage_told(self.shown):
                        record = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
                    yield self._named(record)

    def _checked(self, chosen: Any, start: int, stop: int) -> Sequence[Any]:
        """Rows as record batches; the library itself would follow offsets that lead anywhere."""
        with _damage_told(f"{self.shown}, rows {start} to {stop - 1}"):
            table = chosen[start:stop]
            table.validate(full=True)
            return table.to_batches()  # type: ignore[no-any-return]

    def _named(self, record: dict[str, Any]) -> dict[str, Any]:
        for name in self._classes.keys() & record.keys():
            number = record[name]
            if isinstance(number, int) and 0 <= number < len(self._classes[name]):
                record[name] = self._classes[name][number]
        return record


def _kind(arrow: Any) -> str:
    """The kind of number at the bottom of an Arrow type."""
    types = import_extra("pyarrow.types", "data.format: hf")
    while True:
        if hasattr(arrow, "storage_type"):
            arrow = arrow.storage_type
        elif hasattr(arrow, "value_type"):
            arrow = arrow.value_type
        else:
            break
    if types.is_boolean(arrow):
        return "b"
    return "i" if types.is_integer(arrow) else "f"


@contextmanager
def _damage_told(shown: str) -> Iterator[None]:
    try:
        yield
    except HessdiagError:
        raise
    except Exception as error:  # whatever datasets, pyarrow and pandas raise
        if out_of_memory(error):
            raise
        _let_go(error)
        cause = error.__cause__ or error
        reason = str(cause).strip().partition("\n")[0][:300]
        raise DataError(
            f"data.path: {shown} cannot be read ({type(cause).__name__}: {reason}): "
            "it is damaged, or no dataset of that kind: copy it again, or save it by save_to_disk"
        ) from error


def _let_go(error: BaseException | None) -> None:
    """Close the files that the library has left open, in the frames that an error holds and in cycles of its own."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """No progress bars, no logs, no warnings."""
    verbosity, bars = library.logging.get_verbosity(), not library.utils.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.logging.set_verbosity(library.logging.CRITICAL)
        library.disable_progress_bars()
        try:
            yield
        finally:
            library.logging.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bars()
