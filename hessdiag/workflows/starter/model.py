"""What stands under ``model:``, from the checkpoint and from the Python file beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from hessdiag.findings import Inspection, TensorInfo
from hessdiag.reports.numbers import count
from hessdiag.spec.references import split_reference
from hessdiag.workflows.starter.factories import Factory, find_factories, obvious
from hessdiag.workflows.starter.text import FILL_IN, Line, flow, relative, remark

__all__ = ["model_lines", "output_width"]

_BUILDS_ITSELF = {"huggingface", "peft", "torchscript", "exported"}
_SHOWN = 12  # tensors from the beginning, and as many from the end
_WIDTH = 100  # of a remark's lines
_FILE = "model.py"
_BUILDER = "the function or class that builds the network"


def model_lines(
    found: Inspection | None, checkpoint: Path | None, factory: str | None, folder: Path, shown: Callable[[Path], str]
) -> list[Line]:
    """The lines under ``model:``.

    Args:
        found: what is in the checkpoint; None where none is named.
        checkpoint: where it lies.
        factory: what builds the network, where the person says it.
        folder: that of the spec.
        shown: how the spec names a path.
    """
    lines = [] if found is None else _about(found)
    if factory is not None:
        lines += _named(factory, folder)
    elif found is None or not _builds_itself(found):
        lines += _searched(folder, checkpoint, shown)
    else:
        lines += [remark("No class_path: the checkpoint says how its network is built.")]
    if found is None or checkpoint is None:
        wanted = f"{FILL_IN}: the weights, relative to the folder of this file"
        return [*lines, Line(f"checkpoint: {FILL_IN}.safetensors", wanted)]
    lines += [Line(f"checkpoint: {flow(shown(checkpoint))}", "relative to the folder of this file")]
    if found.format == "peft":
        lines += _adapter(found, checkpoint)
    return lines


def output_width(found: Inspection | None) -> int | None:
    """How many outputs the last weight gives; a guess."""
    weights = [tensor for tensor in found.tensors if _is_weight(tensor)] if found is not None else []
    return weights[-1].shape[0] if weights else None


def _about(found: Inspection) -> list[Line]:
    """Remarks on what the checkpoint holds, by which the network's arguments can be told."""
    lines = [remark(f"{word}: {value}") for word, value in found.architecture.items()]
    if found.refusal is not None:
        return [*lines, *map(remark, textwrap.wrap(found.refusal.reason, _WIDTH))]
    total = found.total
    lines += [remark(f"It holds {count(total.parameters, 'parameter')} in {count(total.tensors, 'tensor')}:")]
    listed = [f"  {tensor.name} ({', '.join(map(str, tensor.shape))}) {tensor.dtype}" for tensor in found.tensors]
    if len(listed) > 2 * _SHOWN:
        rest = f"  ... {count(len(listed) - 2 * _SHOWN)} more; `hessdiag inspect` lists them all ..."
        listed = [*listed[:_SHOWN], rest, *listed[-_SHOWN:]]
    lines += [remark(text) for text in listed]
    weights = [tensor for tensor in found.tensors if _is_weight(tensor)]
    if weights and not _builds_itself(found):
        what = "input" if len(weights[0].shape) == 2 else "input channel"
        inputs, outputs = count(weights[0].shape[1], what), count(weights[-1].shape[0], "output")
        lines.append(remark(f"By the first and the last weight in the file it takes {inputs} and gives {outputs}."))
    return lines


def _builds_itself(found: Inspection) -> bool:
    """Whether it says how its network is built; a pickled one says so where it is refused."""
    whole = found.refusal is not None and "whole pickled" in found.refusal.reason
    return whole or found.format in _BUILDS_ITSELF


def _is_weight(tensor: TensorInfo) -> bool:
    return len(tensor.shape) >= 2


def _named(factory: str, folder: Path) -> list[Line]:
    reference = split_reference(factory)
    written = factory
    if reference is not None:
        file = Path(reference[0]).expanduser()
        written = f"{relative(file, folder)}:{reference[1]}"
        for known in find_factories(file):
            if known.name == reference[1]:
                return [Line(f"class_path: {flow(written)}", _BUILDER), *_arguments(known)]
    return [Line(f"class_path: {flow(written)}", _BUILDER), Line("init_args: {}", "its arguments, as {hidden: 32}")]


def _searched(folder: Path, checkpoint: Path | None, shown: Callable[[Path], str]) -> list[Line]:
    """Look beside the spec, then beside the checkpoint."""
    folders = [folder] if checkpoint is None else [folder, checkpoint.absolute().parent]
    file = next((place / _FILE for place in folders if (place / _FILE).is_file()), None)
    if file is None:
        wanted = f'{FILL_IN}: {_BUILDER}, as "file.py:name" or "package.module.Name"'
        return [Line(f"class_path: {_FILE}:build", wanted), Line("init_args: {}", "its arguments, as {hidden: 32}")]
    factories = find_factories(file)
    chosen = obvious(factories)
    if chosen is None:
        names = " or ".join(f"{shown(file)}:{known.name}" for known in factories[:6]) or f"{shown(file)}:name"
        wanted = f"{FILL_IN}: {_BUILDER}, as {names}"
        return [Line(f"class_path: {FILL_IN}", wanted), Line("init_args: {}", "its arguments, as {hidden: 32}")]
    return [Line(f"class_path: {flow(f'{shown(file)}:{chosen.name}')}", _BUILDER), *_arguments(chosen)]


def _arguments(factory: Factory) -> list[Line]:
    defaults = ", ".join(f"{name}: {value}" for name, value in factory.defaults.items())
    told = f"its defaults: {defaults}" if defaults else "it takes no arguments"
    if not factory.required:
        return [Line("init_args: {}", told)]
    wanted = ", ".join(f"{name}: ..." for name in factory.required)
    more = f"; {told}" if defaults else ""
    return [Line(f"init_args: {FILL_IN}", f"{FILL_IN}: its arguments, {{{wanted}}}{more}")]


def _adapter(found: Inspection, checkpoint: Path) -> list[Line]:
    """Where the base model lies: where the adapter says it, if that is a folder here."""
    base = found.architecture.get("base model", "")
    here = bool(base) and any((start / base / "config.json").is_file() for start in (checkpoint, Path()))
    lines = [Line("adapter: only", "its weights alone; or merged: all weights, with the adapter in them")]
    if here:
        return lines
    return [*lines, Line(f"base: {FILL_IN}", f"{FILL_IN}: the folder of the base model{f', {base}' if base else ''}")]
