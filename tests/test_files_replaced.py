"""A file that is written beside the old one and takes its place, or does not."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hessdiag.errors import UsageError
from hessdiag.files import replaced, write_atomically


def test_the_new_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "weights.bin"
    for content in (b"old", b"new"):
        with replaced(path) as beside:
            assert beside.suffix == ".bin"
            assert not path.exists() or path.read_bytes() == b"old"
            beside.write_bytes(content)
        assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["weights.bin"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_after_an_exception_the_old_stands(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")
    with pytest.raises(failure):
        _fail_half_way(path, failure)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["weights.bin"]


def _fail_half_way(path: Path, failure: type[BaseException]) -> None:
    with replaced(path) as beside:
        beside.write_bytes(b"half")
        raise failure


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="folder: could not be written"), replaced(tmp_path / "folder") as beside:
        beside.write_bytes(b"")
    with pytest.raises(UsageError, match="could not be written"):
        write_atomically(tmp_path / "folder", "")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
