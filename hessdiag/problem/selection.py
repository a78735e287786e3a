"""Which parameters are measured: glob patterns over the names of those that require a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from hessdiag.errors import MeasurementError

__all__ = ["places_of", "plain_name", "select_parameters"]


def select_parameters(
    model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient and match ``include`` but not ``exclude``, in the model's order.

    A tied parameter appears once, under its first name. Patterns see names as they are without ``torch.compile``.

    Raises:
        MeasurementError: a pattern that matches nothing, or nothing selected.
    """
    own = dict(model.named_parameters())
    names = {plain_name(name): parameter for name, parameter in own.items()}
    if not names:
        raise MeasurementError("parameters: the model has none, so there is nothing to differentiate by")
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MeasurementError(
                f"parameters: pattern {pattern!r} matches none of the model's {len(names)} parameters "
                f"({_first(list(names))}): correct it, or drop it"
            )
    matching = {
        name: parameter
        for name, parameter in own.items()
        if any(fnmatchcase(plain_name(name), pattern) for pattern in include)
        and not any(fnmatchcase(plain_name(name), pattern) for pattern in exclude)
    }
    selected = {name: p for name, p in matching.items() if p.requires_grad and p.is_floating_point()}
    if not selected:
        why = (
            f"the {len(matching)} that match are frozen (requires_grad is False): unfreeze them in the model's factory"
            if matching
            else "every one that include takes is taken away by exclude"
        )
        raise MeasurementError(f"parameters: include {list(include)}, exclude {list(exclude)} select nothing: {why}")
    return selected


def plain_name(name: str) -> str:
    """The parameter's name as it is without ``torch.compile`` around some module."""
    return name.replace("_orig_mod.", "")


def _first(names: list[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def places_of(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, list[str]]:
    """Every place of each parameter, for replacing it: a tied one has several.

    A module under two names counts once: torch's own ``tie_weights`` would leave its replacement in it.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    places: dict[str, list[str]] = {name: [] for name in parameters}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if id(parameter) in names:
                places[names[id(parameter)]].append(f"{path}.{name}" if path else name)
    return places
