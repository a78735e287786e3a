"""Why a checkpoint does not fit a model, as far as names, shapes and kinds of number tell."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hessdiag.loading.checkpoints.prefixes import likely_prefix
from hessdiag.loading.checkpoints.words import printable

__all__ = ["likely_cause"]

_ADAPTER = ("lora_A", "lora_B", "lora_embedding_A", "lora_magnitude_vector", "hada_w1_a", "ia3_l")
_OPTIMIZER = ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "max_exp_avg_sq")

Tensors = Mapping[str, Tensor]


def likely_cause(expected: Tensors, found: Tensors) -> str:
    """The likeliest cause, and what to do about it.

    Args:
        expected: the model's tensors.
        found: the checkpoint's.
    """
    unknown = [name for name in found if name not in expected]
    if _any_part(unknown, _ADAPTER):
        return (
            "it holds an adapter (its names have lora_A, lora_B or their like): name the adapter's folder, or save the "
            "merged model"
        )
    if _any_part(unknown, _OPTIMIZER):
        return "it holds the state of an optimizer: name the checkpoint that has the weights"
    if (by_shape := _of_shapes(expected, found)) is not None:
        return by_shape
    if _wrong_kinds(expected, found):
        return "save the weights as floating-point numbers"
    return _of_names(expected, found)


def _any_part(names: list[str], parts: tuple[str, ...]) -> bool:
    return any(part in name.split(".") or name.endswith(f"_{part}") for name in names for part in parts)


def _wrong_kinds(expected: Tensors, found: Tensors) -> bool:
    return any(
        name in found and item.is_floating_point() and not found[name].is_floating_point()
        for name, item in expected.items()
    )


def _of_shapes(expected: Tensors, found: Tensors) -> str | None:
    wrong = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    if not wrong:
        return None
    advice = "set model.init_args to the values that it was trained with"
    heads = {name.rpartition(".")[0] for name in wrong}
    first = wrong[0]
    here, there = expected[first].shape, found[first].shape
    if len(heads) == 1 and len(here) == len(there) > 0 and here[1:] == there[1:]:
        return f"{advice} (the head {printable(heads.pop())} has {there[0]} outputs, the model {here[0]})"
    return advice


def _of_names(expected: Tensors, found: Tensors) -> str:
    found_names, names = list(found), list(expected)
    if len(found) > len(expected) and all(name in found for name in expected):
        return (
            "all of the model's are there: name in model.class_path what has the others too, or save the state dict of "
            "the model alone"
        )
    if (likely := likely_prefix(found_names, names)) is not None:
        return (
            f"{likely[1]} of its {len(found)} names are the model's without the prefix {printable(likely[0])!r}: save "
            "the state dict of that part alone, or name in model.class_path what has all of it"
        )
    if (likely := likely_prefix(names, found_names)) is not None:
        return (
            f"the model's names begin with {likely[0]!r}, and the checkpoint's do not: name in model.class_path what "
            "builds the inner network"
        )
    return "check that model.class_path and model.init_args build the network that was saved"
