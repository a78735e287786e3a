"""Folders of ``torch.distributed.checkpoint``, as FSDP and Accelerate write them: their metadata is a raw pickle."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

from hessdiag.errors import CheckpointError, RefusedError
from hessdiag.loading.checkpoints.allowed import dangerous, do_not_trust
from hessdiag.loading.checkpoints.contents import Contents, Format, Glimpse, Reading
from hessdiag.loading.checkpoints.pickles import unsafe_globals
from hessdiag.loading.checkpoints.state_dict import load_pickle
from hessdiag.loading.checkpoints.words import ALONE, few
from hessdiag.loading.checkpoints.wrapped import unwrap
from hessdiag.memory import out_of_memory

__all__ = ["FORMAT"]

_METADATA = ".metadata"
_MOST_NAMED = 20
_INSIDE = "pytorch_model_fsdp_0"  # where Accelerate puts it in what save_state writes


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.is_folder and (_METADATA in glimpse.names or (glimpse.path / _INSIDE / _METADATA).is_file())


def _folder(path: Path) -> Path:
    return path if (path / _METADATA).is_file() else path / _INSIDE


def _files(path: Path) -> list[Path]:
    folder = _folder(path)
    return [folder / _METADATA, *sorted(folder.glob("*.distcp"))]


def _read(path: Path, reading: Reading) -> Contents:
    """The shards put together in a temporary file, and read from there.

    Raises:
        CheckpointError: without trust; damaged; or without the weights that are asked for.
    """
    if not reading.trust:
        called = unsafe_globals(_folder(path) / _METADATA)
        if any(map(dangerous, called)):
            raise RefusedError(
                "refused: a torch.distributed.checkpoint folder, whose .metadata is a raw pickle, calls "
                f"{few(called, _MOST_NAMED)}, and nothing in a checkpoint is run. {do_not_trust('folder')}"
            )
        raise RefusedError(
            "refused: a torch.distributed.checkpoint folder, whose .metadata is a raw pickle that can run anything, "
            f"and nothing in a checkpoint is run. {ALONE}; or, if you trust whoever made it, --trust-checkpoint"
        )
    with tempfile.TemporaryDirectory(prefix="hessdiag-") as folder:
        whole = Path(folder) / "whole.pt"
        _put_together(_folder(path), whole)
        return unwrap(load_pickle(whole, reading), reading.weights)


def _put_together(folder: Path, whole: Path) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, that no process group is there: none is needed
            logging.disable(logging.CRITICAL)  # it logs tracebacks before it raises
            dcp_to_torch_save(folder, whole)
    except BaseException as error:  # torch's own CheckpointException is none of Exception
        if out_of_memory(error) or isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise CheckpointError(
            f"damaged torch.distributed.checkpoint folder: {_METADATA} or a shard is missing, cut short or "
            "overwritten: copy or save it again"
        ) from error
    finally:
        logging.disable(disabled)


FORMAT = Format("distributed", _recognises, _read, _files)
