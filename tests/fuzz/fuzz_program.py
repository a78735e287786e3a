"""Runs of the program on files that something happened to, and what every such run must keep to."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

WORKER = Path(__file__).with_name("fuzz_worker.py")
SECONDS = 10.0
MOST_BYTES = 5 << 28  # of which the imports take up to 3 << 27
_LONGEST = 20_000  # fifty faults of a spec
_SMALL = 1 << 20


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Pipe:
    """A named pipe that nobody writes to: reading it waits for ever."""


@dataclass(frozen=True)
class Empty:
    """A folder with nothing in it."""


@dataclass(frozen=True)
class Padded:
    """A file followed by zeros that take no room on the disk."""

    content: bytes
    size: int


Item: TypeAlias = bytes | Link | Pipe | Empty | Padded
Files: TypeAlias = Mapping[str, Item]


@dataclass(frozen=True)
class Outcome:
    """How a run ended; ``code`` is None where it had to be killed."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int


class Program:
    """The program in a place of its own: what is measured, a neighbour, a home and a folder for temporary files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.example = place / "example"
        self.worst_seconds, self.peak_bytes, self.runs = 0.0, 0, 0
        self.codes: dict[int | None, int] = {}
        for name in ("home", "tmp"):
            (place / name).mkdir(parents=True)
        self._worker: subprocess.Popen[str] | None = None
        self._imported: set[str] = set()

    def run(self, files: Files, *argv: str, modules: tuple[str, ...] = ()) -> list[str]:
        """Lay out the files, run, and list what is wrong with how that ended: nothing, it is to be hoped."""
        _clear(self.example)
        lay_out(files, self.example)
        self._prepare(modules)
        before = _seen(self.place)
        outcome = self._ask(argv)
        wrong = faults(outcome)
        after = _seen(self.place)
        if after != before:
            changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            wrong.append(f"files were touched: {', '.join(changed[:5])}")
            for name in ("home", "tmp"):
                _clear(self.place / name)
        self.runs += 1
        self.codes[outcome.code] = self.codes.get(outcome.code, 0) + 1
        self.worst_seconds = max(self.worst_seconds, outcome.seconds)
        self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
        return [f"exit {outcome.code}: {one}\n{outcome.stderr[:2000]}" for one in wrong]

    def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None

    def _prepare(self, modules: tuple[str, ...]) -> None:
        """Let the worker import what its runs need; libraries leave things in the folder for temporary files."""
        if self._worker is None:
            self._worker = self._start()
            self._imported.clear()
        if not self._imported.issuperset(modules):
            self._send({"modules": modules})
            self._imported.update(modules)
            _clear(self.place / "tmp")

    def _ask(self, argv: tuple[str, ...]) -> Outcome:
        writable = [str(self.place / "tmp"), str(self.example / ".hessdiag")]
        request = {
            "argv": argv,
            "folder": str(self.example),
            "writable": writable,
            "seconds": SECONDS,
        }
        return Outcome(**self._send(request))

    def _send(self, request: dict[str, Any]) -> Any:
        worker = self._worker
        assert worker is not None
        assert worker.stdin is not None
        print(json.dumps(request), file=worker.stdin, flush=True)
        return self._answer(worker)

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
        environment |= {"TMPDIR": str(self.place / "tmp"), "HOME": str(self.place / "home"), "HF_HUB_OFFLINE": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        worker = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._answer(worker) == {"ready": True}
        return worker

    def _answer(self, worker: subprocess.Popen[str]) -> Any:
        assert worker.stdout is not None
        ready, _, _ = select.select([worker.stdout], [], [], 120 + SECONDS)
        line = worker.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise RuntimeError("the worker ended or hangs: the fault is in the test's own machinery")
        return json.loads(line)


def faults(outcome: Outcome) -> list[str]:
    """What breaks the promise: exit 0, 2 or 3 in time and within bounds, with one clear message."""
    wrong = []
    if outcome.code is None:
        wrong.append(f"hung for {SECONDS:.0f} s")
    elif outcome.code not in (0, 2, 3):
        wrong.append("expected exit 0, 2 or 3")
    if outcome.peak_bytes >= MOST_BYTES:
        wrong.append(f"took {outcome.peak_bytes / 2**30:.1f} GiB of memory")
    wrong += [f"says {word!r}" for word in _FORBIDDEN if word in outcome.stderr]
    if outcome.code in (2, 3):
        wrong += _unclear(outcome)
    elif outcome.code == 0 and outcome.stderr:
        wrong.append("has something on stderr")
    if not all(sign.isprintable() or sign == "\n" for sign in outcome.stdout):
        wrong.append("prints signs that a terminal may obey")
    return wrong


_FORBIDDEN = ("Traceback", "internal error", "Warning", "out of memory", "ESCAPED", "please report")
_TRACEBACK = "\nrun again with --debug for the traceback"  # said where code that the spec names has failed
_PLACED = re.compile(r"(--\w+ )?\S[^\n]*?(:\d+:\d+)?: ")


def _unclear(outcome: Outcome) -> list[str]:
    wrong = []
    text = outcome.stderr.removesuffix("\n").removesuffix(_TRACEBACK)
    lines = text.split("\n")
    if not text:
        return ["no message"]
    if outcome.stdout:
        wrong.append("a failure prints on stdout")
    if not lines[0].startswith("error: ") and not all(_PLACED.match(line) for line in lines):
        wrong.append("no message, or one of an unknown form")
    if lines[0].startswith("error: ") and len(lines) > 1:
        wrong.append("more than one line")
    if len(text) > _LONGEST:
        wrong.append(f"a message of {len(text)} characters")
    if any(not (sign.isprintable() or sign == "\n") for sign in text):
        wrong.append("signs that cannot be printed, which a terminal may obey")
    return wrong


def lay_out(files: Files, folder: Path) -> None:
    """Write the files, and beside their folder a neighbour that none of them may reach."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, item in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(item, bytes):
            path.write_bytes(item)
        elif isinstance(item, Link):
            path.symlink_to(item.target)
        elif isinstance(item, Pipe):
            os.mkfifo(path)
        elif isinstance(item, Empty):
            path.mkdir()
        else:
            path.write_bytes(item.content)
            os.truncate(path, item.size)


def read_folder(folder: Path) -> dict[str, bytes]:
    """All files of a folder by their relative names."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _seen(place: Path) -> dict[str, Any]:
    """All that lies there, but for the reports, which go where they are said to go."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(place):
        if ".hessdiag" in folders:
            folders.remove(".hessdiag")
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            about = os.lstat(path)
            small = name in files and about.st_size <= _SMALL and not os.path.islink(path) and os.path.isfile(path)
            content = Path(path).read_bytes() if small else b""
            changed = None if name in folders else about.st_mtime_ns
            found[path] = (about.st_mode, about.st_size if name in files else None, changed, content)
    return found
