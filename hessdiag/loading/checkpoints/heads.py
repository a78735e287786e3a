"""The head that a network of transformers has, and whether all that it is made of was found among the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hessdiag.errors import CheckpointError
from hessdiag.loading.checkpoints.words import counted, few, printable

__all__ = ["Head", "check_fit"]


@dataclass(frozen=True)
class Head:
    """What an adapter puts in place of its base model's head.

    Attributes:
        architecture: the class in transformers, or the auto class; None: the base model's own.
        labels: how many outputs its head has; None: as the base model's config says.
        trained: modules that the adapter brings whole, so that the base model may lack them.
    """

    architecture: str | None = None
    labels: int | None = None
    trained: tuple[str, ...] = ()

    def brings(self, name: str) -> bool:
        """Whether a tensor of the base model is replaced by one of the adapter."""
        return any(f".{module}." in f".{name}" for module in self.trained)


def check_fit(model: Any, info: Mapping[str, Any], content: Mapping[str, Any], head: Head) -> None:
    """Refuse weights that are not those of the network: what it did not find, transformers made up.

    Args:
        model: as transformers loaded it.
        info: what it says of the loading.
        content: of ``config.json``.
        head: another one than the config's.

    Raises:
        CheckpointError: tensors are missing, of another shape, or have no place where the network goes on without
            them: another task's head, as BERT's own folder has, is left out.
    """
    name = type(model).__name__
    shapes = {key: tuple(item.shape) for key, item in model.state_dict().items()}
    missing = sorted(key for key in info["missing_keys"] if not head.brings(key))
    differing = sorted(entry for entry in info["mismatched_keys"] if not head.brings(entry[0]))
    unexpected = sorted(key for key in info["unexpected_keys"] if not _of_another_head(key, shapes))
    if head.architecture is not None and name not in (content.get("architectures") or ()):
        unexpected = [key for key in unexpected if key.startswith(f"{model.base_model_prefix}.")]
    complaints = []
    if differing:
        key, found, expected = differing[0]
        complaints.append(
            f"{counted(len(differing))} {'has' if len(differing) == 1 else 'have'} another shape (first: "
            f"{printable(key)} is {tuple(found)}, the model expects {tuple(expected)})"
        )
    if missing:
        first = few([f"{key} {shapes.get(key, ())}" for key in missing], 3)
        complaints.append(f"it lacks {len(missing)} of the model's {counted(len(shapes))} (first: {first})")
    if unexpected:
        first = few(unexpected, 3)
        complaints.append(f"it has {counted(len(unexpected))} that the model lacks (first: {first})")
    if complaints:
        complaints.append(_cause(model, missing, differing, head))
        whose = f"{name}, which config.json names" if head == Head() else f"the adapter's base model, {name}"
        raise CheckpointError(f"the weights do not fit {whose}: {'; '.join(complaints)}")


def _of_another_head(name: str, known: Collection[str]) -> bool:
    """Whether it is of a module that the network lacks as a whole, and that is no part of its layers."""
    module = name.rpartition(".")[0]
    in_a_layer = any(part.isdigit() for part in name.split("."))
    return bool(module) and not in_a_layer and not any(key.startswith(f"{module}.") for key in known)


def _cause(model: Any, missing: list[str], differing: list[Any], head: Head) -> str:
    if head != Head():
        return (
            "what the base model lacks the adapter was trained with at random and did not save: name the base model "
            "that holds it in model.base, or train the adapter with it in modules_to_save"
        )
    if missing and not differing and not any(key.startswith(f"{model.base_model_prefix}.") for key in missing):
        return (
            "its head was never trained, or is saved elsewhere, and transformers would fill it with random numbers: "
            "save the fine-tuned model by save_pretrained"
        )
    return "config.json and the weights are not of one model: copy both again, or set architectures to what was saved"
