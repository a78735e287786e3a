"""Each loss as a sum and a count: torch's own mean, whichever way the data are split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessdiag.errors import DataError, UsageError
from hessdiag.losses import (
    LOSSES,
    BCEWithLogits,
    CausalLM,
    CrossEntropy,
    FunctionLoss,
    Loss,
    MeanSquaredError,
    ModelLoss,
    NegativeLogLikelihood,
    as_loss,
)

torch.manual_seed(0)
N, C = 13, 4
LOGITS, CLASSES = torch.randn(N, C, dtype=torch.float64), torch.randint(C, (N,))
IGNORED = torch.where(torch.arange(N) % 3 == 0, -100, CLASSES)
SOME = torch.where(CLASSES == 0, 1, CLASSES)
WEIGHT = (0.3, 1.0, 2.0, 0.0)
W = torch.tensor(WEIGHT, dtype=torch.float64)
TOKENS, LABELS = torch.randn(N, 5, C, dtype=torch.float64), torch.randint(C, (N, 5))
LABELS[torch.rand(N, 5) < 0.3] = -100

PAIRS: dict[str, tuple[Loss, Tensor, Tensor, Callable[[], Tensor]]] = {
    "cross_entropy": (CrossEntropy(), LOGITS, CLASSES, lambda: F.cross_entropy(LOGITS, CLASSES)),
    "ignored": (CrossEntropy(), LOGITS, IGNORED, lambda: F.cross_entropy(LOGITS, IGNORED)),
    "weighted": (CrossEntropy(weight=WEIGHT), LOGITS, IGNORED, lambda: F.cross_entropy(LOGITS, IGNORED, weight=W)),
    "smoothed": (
        CrossEntropy(label_smoothing=0.2, weight=WEIGHT, ignore_index=2),
        LOGITS,
        CLASSES,
        lambda: F.cross_entropy(LOGITS, CLASSES, weight=W, ignore_index=2, label_smoothing=0.2),
    ),
    "probabilities": (
        CrossEntropy(label_smoothing=0.2, weight=WEIGHT),
        LOGITS,
        LOGITS.flip(0).softmax(1),
        lambda: F.cross_entropy(LOGITS, LOGITS.flip(0).softmax(1), weight=W, label_smoothing=0.2),
    ),
    "nll": (
        NegativeLogLikelihood(weight=WEIGHT),
        LOGITS.log_softmax(1),
        IGNORED,
        lambda: F.nll_loss(LOGITS.log_softmax(1), IGNORED, weight=W),
    ),
    "causal_lm": (
        CausalLM(),
        TOKENS,
        LABELS,
        lambda: F.cross_entropy(TOKENS[:, :-1].reshape(-1, C), LABELS[:, 1:].reshape(-1)),
    ),
    "smoothed causal_lm": (
        CausalLM(label_smoothing=0.1),
        TOKENS,
        LABELS,
        lambda: F.cross_entropy(TOKENS[:, :-1].reshape(-1, C), LABELS[:, 1:].reshape(-1), label_smoothing=0.1),
    ),
    "mse": (MeanSquaredError(), LOGITS, LOGITS.flip(0), lambda: F.mse_loss(LOGITS, LOGITS.flip(0))),
    "mse of numbers": (MeanSquaredError(), LOGITS[:, 0], LOGITS[:, 1], lambda: F.mse_loss(LOGITS[:, 0], LOGITS[:, 1])),
    "bce": (
        BCEWithLogits(pos_weight=WEIGHT),
        LOGITS,
        LOGITS.flip(0).sigmoid(),
        lambda: F.binary_cross_entropy_with_logits(LOGITS, LOGITS.flip(0).sigmoid(), pos_weight=W),
    ),
    "one weight for all outputs": (
        BCEWithLogits(pos_weight=(3.0,)),
        LOGITS,
        LOGITS.flip(0).sigmoid(),
        lambda: F.binary_cross_entropy_with_logits(LOGITS, LOGITS.flip(0).sigmoid(), pos_weight=W.new_tensor([3.0])),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("size", [1, 4, N])
def test_sums_over_counts_are_torchs_mean(name: str, size: int) -> None:
    loss, outputs, targets, mean = PAIRS[name]
    loss.check(outputs, targets)
    pairs = [loss(o, t, len(t)) for o, t in zip(outputs.split(size), targets.split(size), strict=True)]
    assert all(value.dtype is torch.float64 and value.ndim == 0 for pair in pairs for value in pair)
    total, count = (sum(float(pair[part]) for pair in pairs) for part in (0, 1))
    assert total / count == pytest.approx(float(mean()), rel=1e-13)


@pytest.mark.parametrize("name", PAIRS)
def test_bfloat16_outputs_are_summed_up_in_higher_precision(name: str) -> None:
    loss, outputs, targets, _ = PAIRS[name]
    rounded = outputs.bfloat16()
    exact, count = loss(rounded.double(), targets, N)
    kept = targets.float() if targets.is_floating_point() else targets
    total, same = loss(rounded, kept, N)
    assert float(total) == pytest.approx(float(exact), rel=1e-5)
    assert float(same) == pytest.approx(float(count), rel=1e-6)


def test_the_example_counts_of_a_mean() -> None:
    model = ModelLoss()
    total, count = model({"loss": torch.tensor(2.0)}, torch.tensor([1, -100, 3]), 3)
    assert (float(total), float(count)) == (4.0, 2.0)
    total, count = model({"loss": torch.tensor(2.0)}, torch.rand(3), 3)
    assert (float(total), float(count)) == (6.0, 3.0)
    total, count = model({"loss": torch.tensor(torch.nan)}, torch.tensor([-100, -100]), 2)
    assert (float(total), float(count)) == (0.0, 0.0)
    total, count = model((torch.tensor(5.0), 4), None, 9)
    assert (float(total), float(count)) == (5.0, 4.0)


def test_an_output_of_two_fields_with_a_loss_is_no_sum_and_count() -> None:
    class Output(NamedTuple):
        loss: Tensor
        logits: Tensor

    total, count = ModelLoss()(Output(torch.tensor(2.0), torch.zeros(3, 1)), torch.tensor([1, 2, 3]), 3)
    assert (float(total), float(count)) == (6.0, 3.0)


@pytest.mark.parametrize("count", [4, 4.0, torch.tensor(4), torch.tensor([4.0])])
def test_a_functions_count_may_be_any_number(count: Any) -> None:
    total, found = FunctionLoss(lambda outputs, targets: (outputs.sum(), count))(torch.ones(3), None, 3)
    assert (float(total), float(found)) == (3.0, 4.0)
    assert found.shape == ()


def test_a_functions_vector_counts_its_units() -> None:
    total, count = FunctionLoss(lambda outputs, targets: outputs)(torch.ones(3, 2), None, 3)
    assert (float(total), float(count)) == (6.0, 6.0)


FROM_TORCH = [
    (nn.CrossEntropyLoss(), CrossEntropy()),
    (
        nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0]), ignore_index=1, label_smoothing=0.25),
        CrossEntropy(ignore_index=1, label_smoothing=0.25, weight=(0.5, 2.0)),
    ),
    (nn.NLLLoss(torch.tensor([0.5, 2.0]), ignore_index=3), NegativeLogLikelihood(3, (0.5, 2.0))),
    (nn.MSELoss(), MeanSquaredError()),
    (nn.BCEWithLogitsLoss(), BCEWithLogits()),
    (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5, 2.0])), BCEWithLogits((0.5, 2.0))),
    (F.cross_entropy, CrossEntropy()),
    (F.nll_loss, NegativeLogLikelihood()),
    (F.mse_loss, MeanSquaredError()),
    (F.binary_cross_entropy_with_logits, BCEWithLogits()),
    *((name, make()) for name, make in LOSSES.items()),
]


@pytest.mark.parametrize(("given", "expected"), FROM_TORCH)
def test_torchs_losses_become_ours_with_their_options(given: Any, expected: Loss) -> None:
    assert as_loss(given) == expected
    assert as_loss(expected) is expected


class Focal(nn.CrossEntropyLoss):
    pass


@dataclass
class Unhashable:
    scale: float

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.scale * outputs.sum(1)


@pytest.mark.parametrize(
    "given",
    [
        Focal(),
        nn.HuberLoss(),
        nn.L1Loss(),
        nn.BCEWithLogitsLoss(weight=torch.ones(2)),
        nn.BCEWithLogitsLoss(pos_weight=torch.ones(2, 1, 1)),
        Unhashable(2.0),
        lambda outputs, targets: outputs,
    ],
)
def test_other_callables_stay_what_they_are(given: Any) -> None:
    loss = as_loss(given)
    assert isinstance(loss, FunctionLoss)
    assert loss.function is given


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_torch_losses_that_are_no_mean_are_refused(reduction: str) -> None:
    with pytest.raises(UsageError, match=f"'{reduction}', expected reduction 'mean'"):
        as_loss(nn.MSELoss(reduction=reduction))


@pytest.mark.parametrize("name", ["cross_entropy", "nll", "causal_lm", "mse", "bce_with_logits"])
def test_targets_that_are_no_tensor_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: found targets of type NoneType"):
        as_loss(name).check(TOKENS, None)


def test_a_mapping_is_a_loss_with_options() -> None:
    found = as_loss({"name": "cross_entropy", "ignore_index": -1, "weight": [1.0, 2.0], "label_smoothing": 0.1})
    assert found == CrossEntropy(ignore_index=-1, label_smoothing=0.1, weight=(1.0, 2.0))
    with pytest.raises(UsageError, match="found options wait, expected those of mse: none"):
        as_loss({"name": "mse", "wait": 1})
    with pytest.raises(UsageError, match="found None, expected one of"):
        as_loss({"weight": [1.0]})


def test_class_numbers_in_a_column() -> None:
    logits, classes = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    loss = CrossEntropy(weight=(1.0, 2.0, 3.0))
    loss.check(logits, classes[:, None])
    assert [float(x) for x in loss(logits, classes[:, None], 5)] == [float(x) for x in loss(logits, classes, 5)]
