"""Weights from a file or a folder: the format is found from the content, and nothing in it runs."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import nn

from hessdiag.errors import CheckpointError, UsageError
from hessdiag.files import neither_file_nor_folder
from hessdiag.loading.checkpoints import (
    accelerate,
    adapters,
    distributed,
    huggingface,
    programs,
    refused,
    run,
    safetensors,
    state_dict,
    weights,
)
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.fit import load_weights
from hessdiag.loading.checkpoints.quantised import refuse_quantised
from hessdiag.loading.checkpoints.words import few, printable
from hessdiag.results import CheckpointInfo

__all__ = ["FORMATS", "Contents", "Format", "Reading", "identify", "load_into", "load_whole", "named", "sha256"]

FORMATS: tuple[Format, ...] = (
    *refused.FILES,
    safetensors.FORMAT,
    programs.TORCHSCRIPT,
    programs.EXPORTED,
    distributed.FORMAT,
    adapters.FORMAT,
    huggingface.FORMAT,
    run.FORMAT,
    accelerate.FORMAT,
    weights.FORMAT,
    *refused.FOLDERS,
    state_dict.FORMAT,
    *refused.LAST,
)
"""Tried in this order: a refused format before the family that it looks like, folders by what is most telling."""

_HEAD = 4096
_LFS = b"version https://git-lfs"


def load_into(model: nn.Module, path: Path, shown: str, reading: Reading) -> tuple[nn.Module, CheckpointInfo]:
    """Read a checkpoint and put its weights into a model that the spec has built.

    Args:
        model: receives the weights.
        path: the file or folder.
        shown: how the user named it, for messages and the report.
        reading: what is allowed, and which weights.

    Returns:
        The model (for an adapter: the model with the adapter), and what the report says of the checkpoint.

    Raises:
        CheckpointError: empty, damaged, of an unknown format, refused, or not fitting the model.
    """
    with named(shown):
        form = identify(path)
        if form.build is not None and form.on_a_model:
            return _built(form, path, shown, replace(reading, model=model))
        contents = form.read(path, reading)
        refuse_quantised(contents.tensors, contents.besides)
        info = CheckpointInfo(shown, contents.format or form.name, sha256(form.files(path)))
    left_out = load_weights(model, contents.tensors, shown)
    return model, replace(info, left_out=left_out)


def load_whole(path: Path, shown: str, reading: Reading) -> tuple[nn.Module, CheckpointInfo]:
    """Load a checkpoint that holds its network too.

    Raises:
        UsageError: it holds weights alone, so that the spec must name what builds the network.
        CheckpointError: as :func:`load_into`.
    """
    with named(shown):
        form = identify(path)
        if form.build is not None:
            return _built(form, path, shown, reading)
        contents = form.read(path, reading)
    if contents.module is None:
        raise UsageError(
            f"missing: {shown} ({contents.format or form.name}) holds weights alone: name what builds the network, "
            '"file.py:name" or "package.module.Name"',
            "model.class_path",
        )
    return contents.module, CheckpointInfo(shown, contents.format or form.name, sha256(form.files(path)))


def _built(form: Format, path: Path, shown: str, reading: Reading) -> tuple[nn.Module, CheckpointInfo]:
    assert form.build is not None
    model = form.build(path, reading)
    files = [*form.files(path), *form.builds_from(path, reading)]
    return model, CheckpointInfo(shown, form.name, sha256(files))


@contextmanager
def named(shown: str) -> Iterator[None]:
    """Begin every complaint with the checkpoint's name."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{shown}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{shown}: could not be read: {error.strerror or error}") from error


def identify(path: Path) -> Format:
    """The format of a checkpoint, from its content.

    Raises:
        CheckpointError: empty, or of no known format.
        OSError: it cannot be read.
    """
    glimpse = _glimpse(path)
    if not glimpse.is_folder:
        if not glimpse.head:
            raise CheckpointError("the file is empty (0 bytes), expected a checkpoint: copy or save it again")
        if glimpse.head.startswith(_LFS):
            raise CheckpointError("found a Git LFS pointer, expected the checkpoint itself: run git lfs pull")
    for form in FORMATS:
        if form.recognises(glimpse):
            return form
    if glimpse.is_folder:
        held = few(sorted(glimpse.names), 5) or "nothing"
        raise CheckpointError(
            f"found a folder that is no checkpoint (it holds {held}), expected a Hugging Face model, an adapter, or a "
            "state that Accelerate or torch.distributed saved; or name the file in it"
        )
    raise CheckpointError(
        f"found neither safetensors nor a torch file (first bytes {glimpse.head[:8]!r}), expected a state dict "
        "saved by safetensors or by torch.save: was it cut short, or is it another file?"
    )


def _glimpse(path: Path) -> Glimpse:
    if path.is_dir():
        if odd := neither_file_nor_folder(path):
            raise CheckpointError(
                f"holds {printable(odd.name)}, which is neither a file nor a folder, and whose reader may wait for "
                "ever: delete it"
            )
        return Glimpse(path, names=frozenset(entry.name for entry in path.iterdir()))
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.startswith(b"PK"):
        return Glimpse(path, head)
    try:
        with zipfile.ZipFile(path) as archive:
            return Glimpse(path, head, frozenset(archive.namelist()))
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return Glimpse(path, head)


def sha256(files: list[Path]) -> str:
    """Of one file, its SHA-256; of several, that of the list of their names and SHA-256s, as sha256sum prints it."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0]
    lines = sorted(f"{digest}  {path.name}\n" for path, digest in zip(files, digests, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
