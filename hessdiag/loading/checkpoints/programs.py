"""TorchScript archives and exported programs: they are programs, and are read only where the user trusts them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import CheckpointError, RefusedError, UsageError
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.words import ALONE, printable
from hessdiag.memory import out_of_memory

__all__ = ["EXPORTED", "TORCHSCRIPT"]


def _is_torchscript(glimpse: Glimpse) -> bool:
    return any(name.endswith("/constants.pkl") for name in glimpse.names)


def _is_exported(glimpse: Glimpse) -> bool:
    """By the files of ``torch.export.save``, since torch 2.7 and before."""
    return any(
        name.rpartition("/")[2] in ("archive_format", "serialized_exported_program.json") for name in glimpse.names
    )


def _trusted(path: Path, reading: Reading, kind: str, loader: Callable[[str], Any]) -> Any:
    """What torch makes of a program.

    Raises:
        CheckpointError: without trust, or where torch cannot load it.
    """
    if not reading.trust:
        raise RefusedError(
            f"refused: {kind}, which is a program, and nothing in a checkpoint is run. {ALONE}; "
            "or, if you trust whoever made it, --trust-checkpoint"
        )
    if reading.weights == "ema":
        raise CheckpointError(f"{kind} holds one set of weights, and no moving average: leave out --weights ema")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            return loader(str(path))
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = printable(str(error).strip().split("\n")[0]) or type(error).__name__
        raise CheckpointError(
            f"{kind} that this torch ({torch.__version__}) cannot load ({reason}): save it again"
        ) from error


def _tensors(items: dict[str, Any]) -> dict[str, Tensor]:
    return {name: item for name, item in items.items() if isinstance(item, Tensor)}


def _load_torchscript(name: str) -> Any:
    return torch.jit.load(name, map_location="cpu")  # type: ignore[no-untyped-call]


def _read_torchscript(path: Path, reading: Reading) -> Contents:
    module = _trusted(path, reading, "a TorchScript archive", _load_torchscript)
    return Contents(_tensors(module.state_dict()))


def _build_torchscript(path: Path, reading: Reading) -> nn.Module:
    """TorchScript modules cannot be called with other weights (torch.func.functional_call), as products need it."""
    _read_torchscript(path, reading)
    raise UsageError(
        f"missing: {path.name} (torchscript) gives its weights, but cannot be differentiated at other weights itself: "
        'name what builds the network, "file.py:name" or "package.module.Name"',
        "model.class_path",
    )


def _read_exported(path: Path, reading: Reading) -> Contents:
    program = _trusted(path, reading, "a torch.export program", torch.export.load)
    return Contents(_tensors(program.state_dict))


def _build_exported(path: Path, reading: Reading) -> nn.Module:
    """The graph as a module.

    Raises:
        CheckpointError: as :func:`_trusted`, or it was exported in training mode, which is fixed in its graph.
    """
    program = _trusted(path, reading, "a torch.export program", torch.export.load)
    module: nn.Module = program.module()
    trained = sorted({str(node.target) for node in program.graph.nodes if _is_training(node)})
    if trained:
        raise CheckpointError(
            f"a torch.export program in training mode ({', '.join(trained[:3])}), expected evaluation mode: call "
            "model.eval() before torch.export.export, or name what builds the network in model.class_path"
        )
    # torch puts functions that refuse to work in the place of these; its graph is in evaluation mode already.
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)
    return module


def _is_training(node: Any) -> bool:
    """Whether an operation of the graph has dropout or batch statistics switched on."""
    arguments = getattr(getattr(node.target, "_schema", None), "arguments", ())
    given = dict(zip((argument.name for argument in arguments), node.args, strict=False)) | dict(node.kwargs)
    return any(given.get(name) is True for name in ("train", "training"))


TORCHSCRIPT = Format("torchscript", _is_torchscript, _read_torchscript, build=_build_torchscript)
EXPORTED = Format("exported", _is_exported, _read_exported, build=_build_exported)
