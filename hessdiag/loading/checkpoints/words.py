"""What a checkpoint holds, in few words; its names come from outside and are cut and made printable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

__all__ = ["ALONE", "counted", "few", "in_few_words", "printable"]

ALONE = "Save the weights alone: torch.save(model.state_dict(), ...) or safetensors"
"""What to do instead, where a checkpoint is refused for what it holds beside tensors."""

_LONGEST = 200


def printable(name: object) -> str:
    """A name that can go to a terminal: no control characters, and not without end."""
    text = name if isinstance(name, str) else repr(name) if isinstance(name, (int, float)) else type(name).__name__
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return text if text.isprintable() else ascii(text)[1:-1]


def few(names: Collection[object], most: int = 4) -> str:
    """The first few names: ``a, b, c, ...``."""
    shown = [printable(name) for name, _ in zip(names, range(most), strict=False)]
    return ", ".join(shown + ["..."] * (len(names) > most))


def counted(count: int, noun: str = "tensor") -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def in_few_words(item: object) -> str:
    """A number or a text as it is, anything larger by its kind and size."""
    if isinstance(item, Tensor):
        return f"tensor {tuple(item.shape)}"
    if isinstance(item, nn.Module):
        return f"module {type(item).__name__}"
    if isinstance(item, str):
        return f"'{printable(item)}'"
    if item is None or isinstance(item, (bool, int, float)):
        return printable(repr(item))
    if isinstance(item, (Mapping, Sequence, set, frozenset)):
        kind = "dict" if isinstance(item, Mapping) else type(item).__name__
        return f"{kind} of {len(item)}"
    return type(item).__name__
