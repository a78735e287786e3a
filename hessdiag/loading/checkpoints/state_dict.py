"""State dicts saved by ``torch.save``, read with ``weights_only``: a pickle that would run code is refused."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.memory import out_of_memory

__all__ = ["FORMAT"]

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2: torch's format before 1.6


def _recognises(glimpse: Glimpse) -> bool:
    """A zip archive, or a bare pickle."""
    return glimpse.head.startswith((_ZIP, _PICKLE))


def _read(path: Path, reading: Reading) -> Contents:
    """The tensors by name, memory-mapped where the file allows.

    Raises:
        CheckpointError: damaged, refused, or no state dict.
    """
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on a pickle protocol that it did not write
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(str(error))) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can make a reader stumble over anything
        if out_of_memory(error):
            raise
        first_sentence = re.split(r"\. |\n", str(error).strip())[0] or type(error).__name__
        raise CheckpointError(
            f"damaged torch file of {path.stat().st_size} bytes ({first_sentence}): it was cut short or overwritten, "
            "copy or save it again"
        ) from error
    return Contents(_tensors(content))


def _check_archive(path: Path) -> None:
    """Refuse other zip archives, and find damage that torch does not look for: it leaves checksums unread."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                "refused: a TorchScript archive, which is a program, and nothing in a checkpoint is run. "
                "Save the weights alone: torch.save(model.state_dict(), ...) or safetensors"
            )
        if not any(name.endswith("/data.pkl") for name in names):
            raise CheckpointError(
                f"found a zip archive that torch.save did not write (it holds {', '.join(names[:3]) or 'nothing'}), "
                "expected a state dict saved by torch.save or as safetensors"
            )
        damaged = [name for name in names if not _intact(archive, name)]
    if damaged and len(damaged) < len(names):  # torch can be told to write no checksums: then none of them is right
        raise CheckpointError(
            f"damaged torch file: {len(damaged)} of its {len(names)} records differ from their checksums "
            f"(first: {damaged[0]}): copy or save it again"
        )


def _intact(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as record:
            while record.read(1 << 20):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False
    return True


def _refusal(message: str) -> str:
    """Name what weights_only would not load."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found is None or found.group(1).endswith("."):  # the file ends within the name
        return (
            "refused or damaged: found a pickle that is not of tensors alone, expected a state dict saved by "
            "torch.save: save the weights again, torch.save(model.state_dict(), ...) or safetensors"
        )
    return (
        f"refused: the pickle calls {found.group(1)}, and nothing in a checkpoint is run. "
        "Save the weights alone: torch.save(model.state_dict(), ...) or safetensors"
    )


def _tensors(content: object) -> Mapping[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"found a {type(content).__name__}, expected a state dict: names to tensors")
    others = [str(name) for name, item in content.items() if not isinstance(item, Tensor)]
    if others:
        raise CheckpointError(
            f"found {len(content)} keys of which {len(others)} are no tensors (first: {', '.join(others[:4])}), "
            "expected a state dict: save the inner state dict alone"
        )
    return {str(name): item for name, item in content.items()}


FORMAT = Format("state_dict", _recognises, _read)
