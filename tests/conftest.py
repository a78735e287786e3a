"""One thread and fixed seeds: the same numbers on every machine and in every order of tests."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

with warnings.catch_warnings():
    # Forward mode loads its rules on first use, by way of a function that torch itself calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))

TORCHVISION = importlib.util.find_spec("torchvision")
NO_VISION = ", ".join(name for name in ("torchvision", "timm") if importlib.util.find_spec(name) is None)


def _operators_of_torchvision() -> torch.library.Library | None:
    """Beside a CPU-only torch, torchvision's compiled operators do not load, without whose names it cannot be imported.

    Its models and transforms call none of them. Where they do load, nothing is defined twice.
    """
    if TORCHVISION is None or TORCHVISION.origin is None:
        return None
    for compiled in Path(TORCHVISION.origin).parent.glob("_C.*"):
        with contextlib.suppress(OSError):
            torch.ops.load_library(compiled)
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_operators = _operators_of_torchvision()  # they go with it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="minutes long: pytest -m slow"))
    if NO_VISION:
        reason = f"{NO_VISION} not installed: they have an environment of their own, pip install -e '.[test,vision]'"
        for item in items:
            if item.get_closest_marker("vision"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
