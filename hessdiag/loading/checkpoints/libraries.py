"""transformers and peft as they are let near a checkpoint: silent, offline, and asking nobody anything."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hessdiag.loading.extras import import_extra

__all__ = ["one_line", "secluded"]

_PURPOSE = "a Hugging Face model"


@contextmanager
def secluded() -> Iterator[None]:
    """Keep the libraries from the terminal and the network: a checkpoint's config may name whatever it likes.

    Neither is anything fetched that it names, nor is whoever sits there asked whether its code may run.
    """
    library = import_extra("transformers", _PURPOSE).utils.logging
    prompts = import_extra("transformers.dynamic_module_utils", _PURPOSE)
    hub = import_extra("huggingface_hub.constants", _PURPOSE)
    logger = logging.getLogger("transformers")
    level, bar = logger.level, library.is_progress_bar_enabled()
    with (
        warnings.catch_warnings(),
        patch.object(prompts, "TIME_OUT_REMOTE_CODE", 0),  # no time to answer: it is refused at once
        patch.object(hub, "HF_HUB_OFFLINE", True),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        library.disable_progress_bar()
        try:
            yield
        finally:
            logger.setLevel(level)
            if bar:
                library.enable_progress_bar()


def one_line(error: Exception) -> str:
    """The first line of a library's error, which may be a page, and the next where it announces one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    words = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])[:300]
    return f"{type(error).__name__}: {words if words.isprintable() else ascii(words)[1:-1]}"
