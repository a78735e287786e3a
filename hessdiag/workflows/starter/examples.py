"""The examples that come with the package: whole specs with their files."""

from __future__ import annotations

from pathlib import Path

import hessdiag

__all__ = ["EXAMPLES", "example_files"]

EXAMPLES = {"digits": ("audit.yaml", "model.py", "mlp.safetensors", "digits.npz")}
"""By name, the files of each."""


def example_files(name: str) -> list[Path]:
    """Where the files of an example lie: in the installed package, or in the checkout that it is run from.

    Raises:
        FileNotFoundError: the installation lacks them.
    """
    package = Path(hessdiag.__file__).resolve().parent
    for folder in (package / "examples" / name, package.parent / "fixtures" / name):
        files = [folder / file for file in EXAMPLES[name]]
        if all(file.is_file() for file in files):
            return files
    raise FileNotFoundError(name)
