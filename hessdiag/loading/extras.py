"""Packages that come with an extra: imported where they are needed, and told how to install where they are not."""

from __future__ import annotations

import importlib
from typing import Any

from hessdiag.errors import HessdiagError

__all__ = ["EXTRAS", "MissingExtraError", "explain_import", "import_extra"]

EXTRAS = {
    "accelerate": "hf",
    "datasets": "hf",
    "peft": "hf",
    "tokenizers": "hf",
    "transformers": "hf",
    "PIL": "vision",
    "timm": "vision",
    "torchvision": "vision",
    "torch_geometric": "graph",
    "pyarrow": "tabular",
    "sklearn": "tabular",
}
"""By the name that is imported, the extra that installs it."""


class MissingExtraError(HessdiagError):
    """A package that an extra installs is missing, or broken (exit 3)."""


def import_extra(module: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its dotted name.
        purpose: what needs it, as the message begins: ``"data.format: parquet"``.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported; the message has the command to run.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise explain_import(error, module, purpose) from error


def explain_import(error: Exception, module: str, purpose: str) -> MissingExtraError:
    """What to say when an optional package does not import."""
    package = module.partition(".")[0]
    install = f"pip install 'hessdiag[{EXTRAS.get(package, 'all')}]'"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
        return MissingExtraError(f"{purpose}: needs the package {package}, which is not installed: {install}")
    if _without_operators(error):
        return MissingExtraError(
            f"{purpose}: {package} cannot be imported, because the installed torchvision lacks its compiled operators "
            "(it was built for another torch): install the pair from one index, as "
            "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
    return MissingExtraError(
        f"{purpose}: {package} is installed but cannot be imported ({type(error).__name__}: {error}): {install}"
    )


def _without_operators(error: BaseException | None) -> bool:
    """Torchvision built for another torch; transformers wraps the error, and says itself only what it missed."""
    while error is not None:
        if "torchvision::" in str(error) and "does not exist" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
