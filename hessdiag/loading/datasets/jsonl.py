"""JSON lines: one object on each line, found again by the place where the line begins."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hessdiag.errors import DataError
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.fields import numbers, read_field, shown, widest
from hessdiag.loading.datasets.records import RecordExamples
from hessdiag.spec.data import JsonlData

__all__ = ["read"]

_LONGEST = 2**25  # bytes of a line: the pixels of a picture of 512 x 512, written out, take half of it


def read(spec: JsonlData, resolve: Callable[[str], Path]) -> RecordExamples:
    """The records of the file, as examples.

    Raises:
        DataError: a line that is no JSON object, or does not hold what is expected.
        UsageError: a field that the spec names is not there.
        MissingExtraError: texts, without transformers.
    """
    return RecordExamples(_Lines(resolve(spec.path), spec.path), spec, resolve)


class _Lines:
    """The lines of a file by number, blank ones passed over; in memory is where each begins."""

    def __init__(self, path: Path, shown: str) -> None:
        self._path, self.shown = path, shown
        starts = array("q")
        with self._open() as file:
            start = 0
            while line := file.readline(_LONGEST + 1):
                if len(line) > _LONGEST:
                    raise DataError(
                        f"{self._line(start)}: found a line of over {_LONGEST} bytes, expected one JSON object on each"
                    )
                if not line.isspace():
                    starts.append(start)
                start += len(line)
        self._starts = np.frombuffer(starts, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, row: int) -> str:
        return self._line(int(self._starts[row]))

    def names(self) -> Sequence[str]:
        return list(next(self.take(np.arange(1), ())))

    def take(self, rows: Rows, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        with self._open() as file:
            for row in rows:
                start = int(self._starts[row])
                if file.tell() != start:
                    file.seek(start)
                yield self._parse(file.readline(_LONGEST), row)

    def kinds(self, names: Sequence[str]) -> dict[str, str]:
        """JSON has one kind of number, so that 1 may stand among 1.5: the whole file decides."""
        found = dict.fromkeys(names, "b")
        if not names:
            return found
        for row, record in enumerate(self.take(np.arange(len(self)), names)):
            for name in names:
                value = read_field(record, name, numbers, partial(self.place, row))
                found[name] = widest(found[name], value.dtype.kind)
        return found

    def _parse(self, line: bytes, row: int) -> dict[str, Any]:
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            found = "bytes that are no UTF-8 text"
        except RecursionError:
            found = "brackets nested too deeply"
        except ValueError as error:  # also a number of thousands of digits
            found = f"what is no JSON ({error})"
        else:
            if isinstance(record, dict):
                return record
            found = shown(record)
        raise DataError(
            f"{self.place(row)}: found {found}, expected a JSON object on each line (one JSON document over several "
            "lines: data.format: hf)"
        )

    def _line(self, start: int) -> str:
        """``file:17``; counted only where it is needed."""
        number = 1
        with self._open() as file:
            while start > 0 and (block := file.read(min(start, 1 << 20))):
                number += block.count(b"\n")
                start -= len(block)
        return f"{self.shown}:{number}"

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with self._path.open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"data.path: {self.shown} cannot be read: {error.strerror or error}") from error
