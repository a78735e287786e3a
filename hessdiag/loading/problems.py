"""A spec becomes a problem: model, checkpoint, data and loss put together on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hessdiag.errors import UsageError
from hessdiag.loading.checkpoints import Reading
from hessdiag.loading.datasets import load_data
from hessdiag.loading.models import load_model
from hessdiag.loading.references import call_reference, import_reference, kind_of
from hessdiag.losses import LOSSES, Loss
from hessdiag.memory import memory_errors_explained
from hessdiag.problem import Problem
from hessdiag.results import CheckpointInfo
from hessdiag.spec import Spec, load_spec
from hessdiag.spec.targets import find_target

__all__ = ["Parts", "load", "load_parts", "load_problem"]

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def load(
    target: str | Path,
    *,
    model: str | None = None,
    data: str | Path | None = None,
    loss: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    dtype: str | None = None,
    trust_checkpoint: bool = False,
    allow_globals: Sequence[str] = (),
) -> Problem:
    """Read a spec and load what it names; or load a checkpoint with the data that a file describes.

    Args:
        target: a spec (a YAML file), a folder that ``hessdiag nso train`` wrote, or, with ``data``, a checkpoint.
        model: of a checkpoint, what builds its network: ``file.py:name`` or ``package.module.Name``.
        data: of a checkpoint, a YAML file with what stands under ``data:`` in a spec.
        loss: of a checkpoint, the loss's name.
        overrides: texts ``KEY.PATH=VALUE`` as for ``--set``; they beat the spec.
        device: ``auto`` (a CUDA device where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        dtype: ``float32``, ``float64`` or ``bfloat16``; default: as the factory builds the model.
        trust_checkpoint: load checkpoints that are programs (whole pickled modules, TorchScript, ...): they may run
            anything.
        allow_globals: dotted names that a checkpoint's pickle may call.

    Returns:
        The problem, loss evaluated and checked.

    Raises:
        SpecError: the spec is wrong; holds every fault.
        CheckpointError: the checkpoint is damaged, refused, or does not fit.
        DataError: the data cannot be read, are empty, or do not fit.
        MeasurementError: see :class:`hessdiag.Problem`.
    """
    found = find_target(Path(target), model=model, data=None if data is None else Path(data), loss=loss)
    return load_problem(
        load_spec(found, overrides),
        device=device,
        dtype=dtype,
        reading=Reading(trust=trust_checkpoint, allowed_globals=tuple(allow_globals)),
    )


@dataclass(frozen=True)
class Parts:
    """What a spec names, loaded: the model on its device and in its precision, where it came from, loss and data."""

    model: nn.Module
    checkpoint: CheckpointInfo | None
    loss: Loss | Callable[[Any, Any], Any]
    data: Iterable[Any]


def load_problem(
    spec: Spec, *, device: str = "auto", dtype: str | None = None, reading: Reading | None = None
) -> Problem:
    """Load what a spec names; see :func:`load`."""
    with memory_errors_explained():
        parts = load_parts(spec, device=device, dtype=dtype, reading=reading)
        return Problem(
            parts.model,
            parts.loss,
            parts.data,
            include=spec.parameters.include,
            exclude=spec.parameters.exclude,
            checkpoint=parts.checkpoint,
            settings=spec.audit,
        )


def load_parts(spec: Spec, *, device: str = "auto", dtype: str | None = None, reading: Reading | None = None) -> Parts:
    """Load what a spec names, piece by piece; see :func:`load`."""
    place = _device(device)
    kind = None if dtype is None else _dtype(dtype)
    model, checkpoint = load_model(spec.model, spec.resolve, reading or Reading(), kind)
    return Parts(model.to(place, kind), checkpoint, _loss(spec), load_data(spec.data, spec.resolve))


def _loss(spec: Spec) -> Loss | Callable[[Any, Any], Any]:
    if spec.loss.name in LOSSES:
        return LOSSES[spec.loss.name](**spec.loss.options())
    function = import_reference(spec.loss.name, spec.resolve, "loss")
    if isinstance(function, type) and issubclass(function, nn.Module):
        function = call_reference("loss", spec.loss.name, function, spec.resolve)
    if not callable(function):
        raise UsageError(f"{spec.loss.name} is {kind_of(function)}, expected a function", "loss")
    return function  # type: ignore[no-any-return]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device: found {name!r}, expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device: found {name!r}, but torch {torch.__version__} sees {_cuda_devices()}: use cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device: found {name!r}, but torch {torch.__version__} sees no mps device: use cpu")
    if device.type not in ("cpu", "cuda", "mps") or name.startswith("cpu:"):
        raise UsageError(f"device: found {name!r}, expected auto, cpu, cuda, cuda:N or mps")
    return device


def _cuda_devices() -> str:
    count = torch.cuda.device_count()
    return f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UsageError(f"dtype: found {name!r}, expected {', '.join(DTYPES)}")
    return DTYPES[name]
