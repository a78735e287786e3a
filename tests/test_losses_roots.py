"""Each convex loss knows S with S S^T the second derivative of its total in the outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hessdiag.losses import (
    BCEWithLogits,
    CausalLM,
    CrossEntropy,
    FunctionLoss,
    Loss,
    MeanSquaredError,
    ModelLoss,
    NegativeLogLikelihood,
    convex_form,
)

torch.manual_seed(0)
N, C, D = 5, 4, torch.float64
LOGITS, CLASSES = torch.randn(N, C, dtype=D), torch.randint(C, (N,))
SOME = torch.where(torch.arange(N) % 3 == 0, -100, CLASSES)
WEIGHT = (0.3, 1.0, 2.0, 0.0)
PICTURES, LABELS = torch.randn(N, C, 3, 2, dtype=D), torch.randint(C, (N, 3, 2))
LABELS[0, 0] = -100
LABELS[:, 1, 1] = -100
TEXTS, NEXT = torch.randn(N, 5, C, dtype=D), torch.randint(C, (N, 5))
NEXT[0] = -100
NEXT[:, 2] = -100
ONE = CLASSES.remainder(2)

# Loss, outputs, targets, and how many cotangents are exact.
CASES: dict[str, tuple[Loss, Tensor, Tensor, int]] = {
    "classes": (CrossEntropy(), LOGITS, CLASSES, C - 1),
    "two classes": (CrossEntropy(), LOGITS[:, :2], ONE, 1),
    "classes in a column": (CrossEntropy(), LOGITS, CLASSES[:, None], C - 1),
    "ignored, weighted and smoothed": (CrossEntropy(label_smoothing=0.2, weight=WEIGHT), LOGITS, SOME, C - 1),
    "ignored within the classes": (CrossEntropy(CLASSES[0].item(), 0.2, WEIGHT), LOGITS, CLASSES, C - 1),
    "probabilities": (CrossEntropy(), LOGITS, LOGITS.flip(0).softmax(1), C - 1),
    "no probabilities": (CrossEntropy(label_smoothing=0.2, weight=WEIGHT), LOGITS, LOGITS.abs(), C - 1),
    "pictures": (CrossEntropy(label_smoothing=0.1, weight=WEIGHT), PICTURES, LABELS, 5 * (C - 1)),
    "pictures of probabilities": (CrossEntropy(weight=WEIGHT), PICTURES, PICTURES.flip(0).softmax(1), 6 * (C - 1)),
    "nll": (NegativeLogLikelihood(weight=WEIGHT), LOGITS.log_softmax(1), SOME, C - 1),
    "next token": (CausalLM(), TEXTS, NEXT, 3 * (C - 1)),
    "next token, smoothed": (CausalLM(label_smoothing=0.3), TEXTS, NEXT, 3 * (C - 1)),
    "squares": (MeanSquaredError(), LOGITS, LOGITS.flip(0), C),
    "squares of numbers": (MeanSquaredError(), LOGITS[:, 0], LOGITS[:, 1:2], 1),
    "squares of pictures": (MeanSquaredError(), PICTURES, PICTURES.flip(0), 6 * C),
    "yes or no": (BCEWithLogits(), LOGITS[:, 0], ONE, 1),
    "several times yes or no": (BCEWithLogits(WEIGHT), LOGITS, (LOGITS > 0).to(D), C),
    "soft targets": (BCEWithLogits((3.0,)), LOGITS, LOGITS.flip(0).sigmoid(), C),
}


def second_derivative(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    def total(z: Tensor) -> Tensor:
        return loss(z, targets, len(z))[0]

    return torch.autograd.functional.hessian(total, outputs).reshape(outputs.numel(), -1)


def convex(name: str):
    loss, outputs, targets, columns = CASES[name]
    form = convex_form(loss)
    assert form is not None
    assert form.why_not_convex(outputs, targets) is None
    return form, outputs, targets, columns


@pytest.mark.parametrize("name", CASES)
def test_the_columns_are_a_root_of_the_second_derivative(name: str) -> None:
    loss, outputs, targets, columns = convex(name)
    root = loss.root(outputs, targets)
    assert root.columns == columns
    products = torch.zeros(outputs.numel(), outputs.numel(), dtype=D)
    for column in map(root.column, range(columns)):
        for row in range(N):
            alone = torch.zeros_like(column)
            alone[row] = column[row]
            products += torch.outer(alone.flatten(), alone.flatten())
    assert torch.allclose(products, second_derivative(loss, outputs, targets), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_random_signs_have_the_second_derivative_as_their_second_moment(name: str) -> None:
    loss, outputs, targets, _ = convex(name)
    root, draws = loss.root(outputs, targets), 2000
    signs = torch.randint(2, (draws, *outputs.shape), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    drawn = torch.stack([root.times(noise).flatten() for noise in signs])
    mean = drawn.T @ drawn / draws
    stderr = (((drawn**2).T @ drawn**2 / draws - mean**2).clamp(min=0) / draws).sqrt()
    errors = mean - second_derivative(loss, outputs, targets)
    # Entries of one example's outputs and, where it is zero, of two examples': thousands of them, so 5 and not 4.
    assert bool((errors.abs() <= 5 * stderr + 1e-14).all())


@pytest.mark.parametrize("name", CASES)
def test_the_value_stays_what_it_was(name: str) -> None:
    loss, outputs, targets, _ = CASES[name]
    form = convex_form(loss)
    assert form is not None
    for part, same in zip(form(outputs, targets, N), loss(outputs, targets, N), strict=True):
        assert float(part) == pytest.approx(float(same), rel=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_outputs_get_bfloat16_cotangents_of_the_rounded_outputs(name: str) -> None:
    loss, outputs, targets, _ = CASES[name]
    form = convex_form(loss)
    assert form is not None
    rounded = outputs.bfloat16()
    noise = torch.ones(outputs.shape)
    found = form.root(rounded, targets).times(noise)
    assert found.dtype is torch.bfloat16
    exact = form.root(rounded.double(), targets).times(noise)
    assert torch.allclose(found.double(), exact, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("loss", [ModelLoss(), FunctionLoss(lambda outputs, targets: outputs)])
def test_losses_that_are_not_known_to_be_convex_have_no_root(loss: Loss) -> None:
    assert convex_form(loss) is None


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "why"),
    [
        (NegativeLogLikelihood(), LOGITS, CLASSES, "no log-probabilities"),
        (CrossEntropy(weight=(1.0, -1.0, 1.0, 1.0)), LOGITS, torch.ones_like(CLASSES), "below 0"),
        (CrossEntropy(), LOGITS, torch.full_like(LOGITS, -0.1), "below 0"),
        (BCEWithLogits((-2.0,)), LOGITS[:, 0], torch.ones(N, dtype=D), "below 0"),
    ],
)
def test_what_is_not_convex_says_why(loss: Loss, outputs: Tensor, targets: Tensor, why: str) -> None:
    form = convex_form(loss)
    assert form is not None
    assert why in str(form.why_not_convex(outputs, targets))
