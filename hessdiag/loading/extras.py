"""Packages that come with an extra: imported where they are needed, and told how to install where they are not."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from hessdiag.errors import HessdiagError

__all__ = ["EXTRAS", "MissingExtraError", "explain_failure", "explain_import", "import_extra"]

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
    "matplotlib": "plot",
    "tensorboard": "tensorboard",
    "pyarrow": "tabular",
    "sklearn": "tabular",
}
"""By the name that is imported, the extra that installs it."""

_PUBLISHED_BUILDS = ("cpu", "cu", "rocm", "xpu")  # of torch, each with a package index of its own


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


def explain_import(error: BaseException, module: str, purpose: str) -> MissingExtraError:
    """What to say when an optional package does not import."""
    package = module.partition(".")[0]
    return explain_failure(error, purpose) or MissingExtraError(
        f"{purpose}: {package} is installed but cannot be imported ({type(error).__name__}: {error}): "
        f"{_install(package)}"
    )


def explain_failure(error: BaseException, purpose: str) -> MissingExtraError | None:
    """What to say when any code failed because an optional package is missing or broken; None where it is not so."""
    package = _missing_package(error)
    if package in EXTRAS:
        return MissingExtraError(f"{purpose}: needs the package {package}, which is not installed: {_install(package)}")
    if _without_operators(error):
        return MissingExtraError(
            f"{purpose}: the installed torchvision cannot be imported, because it lacks its compiled operators: it was "
            f"built for another torch than {version('torch')}. It takes timm and transformers down with it. "
            f"Install the pair from one index: {_install_pair()} (or, where only transformers is needed: "
            "pip uninstall torchvision)"
        )
    return None


def _install(package: str) -> str:
    return f"pip install 'hessdiag[{EXTRAS.get(package, 'all')}]'"


def _install_pair() -> str:
    release, _, build = version("torch").partition("+")
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build.startswith(_PUBLISHED_BUILDS) else ""
    return f"pip install --force-reinstall torch=={release} torchvision{index}"


def _missing_package(error: BaseException) -> str | None:
    """The first missing module that is named; transformers wraps the error, and says itself only what it missed."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name.partition(".")[0]
    return None


def _without_operators(error: BaseException) -> bool:
    """Torchvision built for another torch."""
    return any("torchvision::" in str(cause) and "does not exist" in str(cause) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on; what was merely being handled meanwhile is not to blame."""
    while error is not None:
        yield error
        error = error.__cause__
