"""A folder with the files that a spec names, and readers of texts in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_texts import Faults, Load

from hessdiag.errors import SpecError
from hessdiag.spec import Spec, load_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.py", "digits.npz", "mlp.safetensors"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Load:
    """Load a spec from its text."""

    def from_text(text: str, *overrides: str) -> Spec:
        path = folder / "audit.yaml"
        path.write_bytes(text.encode())
        return load_spec(path, overrides)

    return from_text


@pytest.fixture
def faults(load: Load, folder: Path) -> Faults:
    """The faults of a spec as (line, column, message); the folder's name is written DIR."""

    def of_text(text: str, *overrides: str) -> list[tuple[int | None, int | None, str]]:
        with pytest.raises(SpecError) as caught:
            load(text, *overrides)
        assert caught.value.exit_code == 2
        for fault in caught.value.diagnostics:
            assert fault.file == (str(folder / "audit.yaml") if fault.line else fault.file)
        return [(f.line, f.column, f.message.replace(str(folder), "DIR")) for f in caught.value.diagnostics]

    return of_text
