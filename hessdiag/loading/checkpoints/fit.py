"""Tensors by name into a model; what does not fit is told with counts, the first few, and the likely cause."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from hessdiag.errors import CheckpointError

__all__ = ["load_weights"]

_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], shown: str) -> None:
    """Copy the tensors into the model's parameters and buffers.

    Raises:
        CheckpointError: names or shapes differ from the model's.
    """
    expected = {name: item for name, item in model.state_dict().items() if isinstance(item, Tensor)}
    complaints = [
        *_wrong_shapes(expected, tensors),
        *_missing(expected, tensors),
        *_unexpected(expected, tensors),
    ]
    if complaints:
        raise CheckpointError(
            f"{shown} does not fit the model: " + "; ".join([*complaints, *_cause(expected, tensors)])
        )
    model.load_state_dict(dict(tensors), strict=False)


def _wrong_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    wrong = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    if not wrong:
        return []
    first = wrong[0]
    return [
        f"{len(wrong)} tensors have another shape (first: {first} is {tuple(found[first].shape)}, "
        f"the model expects {tuple(expected[first].shape)})"
    ]


def _missing(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    shared = {expected[name].data_ptr() for name in found if name in expected}
    missing = [
        name
        for name, tensor in expected.items()
        if name not in found
        and not name.endswith("num_batches_tracked")  # checkpoints from before torch 0.4.1 lack it
        and not (tensor.numel() and tensor.data_ptr() in shared)  # tied to one that is there
    ]
    if not missing:
        return []
    return [f"it lacks {len(missing)} of the model's {len(expected)} tensors ({_first(missing, expected)})"]


def _unexpected(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    unexpected = [name for name in found if name not in expected]
    if not unexpected:
        return []
    return [f"it has {len(unexpected)} tensors that the model lacks ({_first(unexpected, found)})"]


def _first(names: list[str], tensors: Mapping[str, Tensor]) -> str:
    shown = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in names[:3])
    return f"first: {shown}" + (", ..." if len(names) > 3 else "")


def _cause(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    for prefix in _WRAPPER_PREFIXES:
        if found and all(name.startswith(prefix) and name.removeprefix(prefix) in expected for name in found):
            return [f"its names have the prefix {prefix!r} of a wrapper: save the inner model's state dict"]
    if any(name in expected and expected[name].shape != found[name].shape for name in found):
        return ["set model.init_args to the values that it was trained with"]
    return ["check that model.class_path and model.init_args build the network that was saved"]
