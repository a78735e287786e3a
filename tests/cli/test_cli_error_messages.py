"""Every error of checkpoints, data and targets, provoked through the program: its exit code and its words.

After a wanted change: ``HESSDIAG_REGENERATE_GOLDEN=1 pytest tests/cli/test_cli_error_messages.py``, then read the diff
as a user would: does each say what was found, what was expected, and what to do?
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import error_cases_checkpoints  # noqa: F401
import error_cases_data  # noqa: F401
import error_cases_extras
import error_cases_targets  # noqa: F401
import error_cases_transformers  # noqa: F401
import pytest
from error_cases import FAMILIES, TRACE, Case

import hessdiag

GOLDEN = Path(__file__).parent.parent / "golden"
PACKAGE = Path(hessdiag.__file__).parent
SOURCES = [*sorted((PACKAGE / "loading").rglob("*.py")), PACKAGE / "spec" / "targets.py"]


def provoked(case: Case, folder: Path, run, monkeypatch) -> str:
    """What the program says, with what differs from machine to machine taken out."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    try:
        arguments = case.prepare(folder) or TRACE
        with monkeypatch.context() as patched:
            if case.free is not None:
                patched.setattr("hessdiag.loading.datasets.room.available_memory", lambda device: case.free)
            found = run(*arguments)
    finally:
        error_cases_extras.show()
    assert not (folder / "RAN").exists()
    text = found.stderr.replace(str(folder), "FOLDER")
    text = re.sub(r"(?<=file of )\d+(?= bytes)|(?<=in a file of )\d+", "N", text)
    if case.varying:
        text, count = re.subn(case.varying, "...", text)
        assert count, f"{case.title}: found nothing of {case.varying!r} in {text}"
    told = f"$ hessdiag {' '.join(arguments)}\n" if arguments[: len(TRACE)] != TRACE or arguments != TRACE else ""
    return f"## {case.title}\n{told}{found.stdout}exit {found.exit_code}\n{text}\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_messages(family, run, tmp_path, monkeypatch):
    cases = FAMILIES[family]
    assert len({case.title for case in cases}) == len(cases)
    missing = sorted({name for case in cases for name in case.needs if importlib.util.find_spec(name) is None})
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    texts = [provoked(case, tmp_path / str(number), run, monkeypatch) for number, case in enumerate(cases)]
    for case, text in zip(cases, texts, strict=True):
        assert re.search(r"^exit [23]$", text, re.MULTILINE), text
        assert "internal error" not in text, text
        assert case.title
    path = GOLDEN / f"errors-{family}.txt"
    whole = "\n".join(texts)
    if os.environ.get("HESSDIAG_REGENERATE_GOLDEN"):
        path.write_text(whole, encoding="utf-8")
    assert whole == path.read_text(encoding="utf-8")


# What no case provokes, by a part of its words, and why.
NOT_PROVOKED = {
    "a model that it does not name": "shown by inspect, no error",
    "exception occurred : ": "a regular expression",
    "WeightsUnpickler error: ": "taken out of torch's messages",
    "a class with its source": "shown by inspect, no error",
    "named in auto_map, which is never run": "shown by inspect, no error",
    " bytes, not read": "shown by inspect, no error",
    "folder, not read": "shown by inspect, no error",
    "CIFAR-10": "names of the versions",
    "PROTO FRAME STOP": "opcodes",
    "bytes with a state": "stands within a message that begins with the library's",
    ": could not be read: ": "needs a file that the system does not let us read",
    " cannot be read: ": "needs a file that the system does not let us read",
    "see that it is a readable text file": "needs a file that the system does not let us read",
    " sees no mps device": "only where there is none",
    "pip install --force-reinstall torch==": "differs with the build of torch",
    " --index-url https": "differs with the build of torch",
    ") cannot load (": "differs with the release of torch",
    " steps, far more than weights need. ": "takes a pickle of many megabytes",
    "refused: its pickle has more than ": "takes a pickle of many megabytes",
    "its pickle cannot be found": "a file that changes while it is read",
    " are free: set TMPDIR": "needs a full disk",
    "take a file that you trust": "needs a damaged parquet file, see the fuzzing",
    " declares a group of ": "needs a damaged parquet file, see the fuzzing",
    " rows: it is damaged": "needs a damaged parquet file, see the fuzzing",
    " rows, but holds ": "needs a damaged parquet file, see the fuzzing",
    "too many pixels": "where Pillow does not say how many",
    "failed on these texts": "needs a tokenizer that reads and then fails, see the fuzzing",
    ", separated by commas": "where no line is to blame",
    ": found what is not text of numbers": "where no line is to blame",
    "lower data.batch_size, or take other data.features": "takes a batch beyond the memory",
    " one-hot columns": "takes edges beyond the memory",
    "give its edges fewer labels": "takes edges beyond the memory",
    "asks for more memory than is free": "takes more memory than a test may",
    " bytes: copy or save it again": "takes more memory than a test may",
    "found no Python file, expected a name that ends in .py": "the spec's reader is there first",
}


def words_in(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of several words in a module that are no docstrings, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            text = node.value.strip()
            if len(text) >= 15 and " " in text:
                yield node.lineno, node.value


def test_every_message_is_there():
    golden = "".join(path.read_text(encoding="utf-8") for path in GOLDEN.glob("errors-*.txt"))
    lacking = [
        f"{path.relative_to(PACKAGE)}:{line}: {text!r}"
        for path in SOURCES
        for line, text in words_in(path)
        if text not in golden and not any(part in text for part in NOT_PROVOKED)
    ]
    assert not lacking, "provoke these in tests/cli/error_cases_*.py, or say why not:\n" + "\n".join(lacking)


def test_what_is_not_provoked_is_still_said():
    said = [text for path in SOURCES for _, text in words_in(path)]
    assert [part for part in NOT_PROVOKED if not any(part in text for text in said)] == []
