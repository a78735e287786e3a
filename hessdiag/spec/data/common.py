"""What all data have in common: a subset, and batches."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from hessdiag.spec.fields import StrictModel, Text, Whole0, Whole1, expected

__all__ = ["Classes", "CommonData", "Inputs", "Names", "holds_labels", "kind_of_names", "names_expected"]


class CommonData(StrictModel):
    """A dataset of some ``format``, never shuffled."""

    format: str = Field(description="The format of the data.")
    max_examples: Annotated[Whole1 | None, Field(description="A random subset; omitted: all.")] = None
    seed: Whole0 = Field(
        default=0, description="Chooses the subset, and in training what is validated on; independent of --seed."
    )
    batch_size: Whole1 = Field(default=256, description="Examples in a batch; the results do not depend on it.")

    def lacks_targets_for(self, loss: str) -> bool:
        """Whether the loss needs targets that the spec does not name."""
        return False


_KINDS: dict[type, str] = {str: "<name>", list: "<names>", tuple: "<names>", dict: "<mapping>"}


def kind_of_names(value: Any) -> str | None:
    """The tag of a name, of several, or of a mapping."""
    return _KINDS.get(type(value))


def names_expected(phrase: str) -> BeforeValidator:
    """Refuse what is neither a name nor a list of names nor a mapping."""

    def check(value: Any) -> Any:
        if kind_of_names(value) is None:
            raise expected(phrase)
        return value

    return BeforeValidator(check)


Inputs = Annotated[
    Annotated[Text, Tag("<name>")]
    | Annotated[tuple[Text, ...], Field(strict=False, min_length=1), Tag("<names>")]
    | Annotated[dict[str, Text], Field(min_length=1), Tag("<mapping>")],
    Discriminator(kind_of_names),
    names_expected("a name, a list of them, or a mapping from argument to name"),
]
"""A name for model(x), several for model(*x), or a mapping from argument to name for model(**x)."""


Names = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


def _each_once(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) < len(words):
        raise expected("each class once")
    return words


Classes = Annotated[Names, Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_each_once)]
"""Words in the order of their class numbers."""


def holds_labels(inputs: object) -> bool:
    """Whether a mapping gives a model its ``labels`` as an input: padded as such, and no part of the denominator."""
    return isinstance(inputs, dict) and "labels" in inputs
