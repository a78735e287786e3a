"""The files that a spec names."""

# ruff: noqa: E501 (a table reads best with a row to a line)

from __future__ import annotations

from pathlib import Path

import pytest
from spec_texts import BASE, Faults, Load, marked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE.replace("model.py:build", "§nets.py:build"), "model.class_path: no such file: 'nets.py' (looked in DIR)"),
        (BASE.replace("class_path: model.py:build", "_target_: §nets.py:build"), "model.class_path: no such file: 'nets.py' (looked in DIR)"),
        (BASE.replace("build}", "build, checkpoint: §mlp.pt}"), "model.checkpoint: no such file: 'mlp.pt' (looked in DIR)"),
        (BASE.replace("digits.npz", "§digit.npz"), "data.path: no such file: 'digit.npz' (looked in DIR)"),
        (BASE.replace("digits.npz", "§'/no/such.npz'"), "data.path: no such file: '/no/such.npz'"),
        (BASE.replace("npz, path: digits.npz", "csv, path: §."), "data.path: found the folder '.', expected a file"),
        (BASE.replace("digits.npz", '§"a\\0b"'), "data.path: no such file: 'a\\x00b' (looked in DIR)"),
        (BASE + "loss: §loss.py:f", "loss: no such file: 'loss.py' (looked in DIR)"),
        (BASE + "loss: {name: §'loss.py:f'}", "loss.name: no such file: 'loss.py' (looked in DIR)"),
    ],
)  # fmt: skip
def test_missing_files(faults: Faults, text: str, message: str) -> None:
    plain, line, column = marked(text)
    assert faults(plain) == [(line, column, message)]


def test_a_missing_file_is_said_beside_other_faults(faults: Faults) -> None:
    assert faults(BASE.replace("path: digits.npz", "path: digit.npz, seed: -1")) == [
        (2, 27, "data.path: no such file: 'digit.npz' (looked in DIR)"),
        (2, 44, "data.seed: found -1, expected a whole number of at least 0"),
    ]


def test_home_and_absolute_names(load: Load, faults: Faults, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(BASE.replace("digits.npz", f"'{folder / 'digits.npz'}'"))
    home = folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    text = BASE.replace("digits.npz", "~/own.npz")
    assert faults(text) == [(2, 27, "data.path: no such file: '~/own.npz' (looked in DIR/home)")]
    (home / "own.npz").touch()
    assert load(text).resolve("~/own.npz") == home / "own.npz"


def test_a_module_needs_no_file_and_a_checkpoint_may_be_a_folder(load: Load, folder: Path) -> None:
    (folder / "weights").mkdir()
    spec = load(BASE.replace("model.py:build", "torchvision.models.resnet18, checkpoint: weights"))
    assert spec.model.checkpoint == "weights"
