"""Is all well here? Packages, devices, and a small measurement against a dense Hessian. Runs where torch does not."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

from hessdiag.findings import Device, Examination, Package, SelfTest
from hessdiag.loading.extras import EXTRAS
from hessdiag.workflows.imports import import_faults

__all__ = ["NEEDED", "examine"]

NEEDED = ("torch", "numpy", "scipy", "pydantic", "pyyaml", "rich", "safetensors", "typer", "pyhessian")
"""What hessdiag is never without, by the names that are installed."""

_IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "torch-geometric": "torch_geometric"}
_INSTALLED_AS = {module: name for name, module in _IMPORTED_AS.items()}
_COMPILED = ("PIL", "pyarrow", "sklearn", "tokenizers", "torchvision")  # these break beside another build of a package


def examine() -> Examination:
    """Examine the environment; nothing is raised, what fails is told."""
    with ThreadPoolExecutor(1) as executor:
        installed = [name for name in _COMPILED if _version(_INSTALLED_AS.get(name, name)) is not None]
        broken = executor.submit(import_faults, installed)
        fault = _torch_fault()
        devices, tests = ((), ()) if fault is not None else _tried()
        needed = [_package(name, None, fault if name == "torch" else None) for name in NEEDED]
        faults = broken.result()
    extras = [
        _package(_INSTALLED_AS.get(name, name), extra, faults.get(name))
        for name, extra in sorted(EXTRAS.items(), key=lambda item: (item[1], item[0].lower()))
    ]
    return Examination(
        python=platform.python_version(),
        platform=platform.platform(),
        torch_build=None if fault is not None else _torch_build(),
        packages=(*needed, *extras),
        devices=devices,
        self_tests=tests,
    )


def _package(name: str, extra: str | None, fault: str | None) -> Package:
    version = _version(name)
    if version is None:
        return Package(name, extra, None, install=_install(extra))
    return Package(name, extra, version, fault=fault or _too_old(name, version))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # some systems install packages without their metadata
        return "unknown" if importlib.util.find_spec(_IMPORTED_AS.get(name, name)) else None


def _install(extra: str | None) -> str:
    if extra is None:
        return "pip install --upgrade hessdiag"
    build = (_version("torch") or "").partition("+")[2]
    # Torchvision must be of torch's own build, and the default index has only one.
    published = extra == "vision" and build.startswith(("cpu", "cu", "rocm", "xpu"))
    index = f" --extra-index-url https://download.pytorch.org/whl/{build}" if published else ""
    return f"pip install 'hessdiag[{extra}]'{index}"


def _too_old(name: str, version: str) -> str | None:
    """Whether an installed package is older than hessdiag asks for; pip looks only at what it installs itself."""
    try:
        requirements = metadata.requires("hessdiag") or []
    except metadata.PackageNotFoundError:  # run from a checkout
        return None
    for requirement in requirements:
        asked = re.match(r"([\w.-]+)>=([\d.]+)", requirement)
        if asked and _same(asked[1], name) and _release(version) < _release(asked[2]):
            return f"found {version}, expected at least {asked[2]}: pip install --upgrade {name}"
    return None


def _same(one: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _torch_fault() -> str | None:
    try:
        importlib.import_module("torch")
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        return (
            f"cannot be imported ({type(error).__name__}: {first_line}): install it again, "
            "pip install --force-reinstall torch"
        )
    return None


def _torch_build() -> str:
    import torch

    if torch.version.cuda is not None:
        built, seen = f"built for CUDA {torch.version.cuda}", torch.cuda.is_available()
    elif getattr(torch.version, "hip", None) is not None:
        built, seen = f"built for ROCm {torch.version.hip}", torch.cuda.is_available()
    elif torch.backends.mps.is_built():
        built, seen = "built for MPS", torch.backends.mps.is_available()
    else:
        return "built for the CPU alone"
    return built if seen else f"{built}, but it sees no such device"


def _tried() -> tuple[tuple[Device, ...], tuple[SelfTest, ...]]:
    """The devices that torch sees, and a self-test on the first of each kind."""
    devices = tuple(_devices())
    first = {device.name.partition(":")[0]: device.name for device in reversed(devices)}
    try:
        from hessdiag.workflows.self_test import self_test
    except Exception as error:  # a broken numpy or scipy, say
        return devices, (SelfTest("cpu", 0.0, fault=f"{type(error).__name__}: {error}"),)
    return devices, tuple(self_test(name) for name in sorted(first.values(), key=lambda name: name != "cpu"))


def _devices() -> Iterator[Device]:
    import torch

    from hessdiag.memory import available_memory

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    words = f"{threads} thread{'s' * (threads != 1)} on {cores} core{'s' * (cores != 1)}"
    yield Device("cpu", words, _installed_memory(), available_memory(torch.device("cpu")))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Device(f"cuda:{index}", properties.name, properties.total_memory, _free_memory(index))
    if torch.backends.mps.is_available():
        yield Device("mps", "Apple GPU")


def _installed_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _free_memory(index: int) -> int | None:
    import torch

    try:
        return int(torch.cuda.mem_get_info(index)[0])
    except RuntimeError:  # another process has it for itself; the self-test says what torch says
        return None
