"""Two-point gradients against closed forms: on w^4, on quadratics, and in what they leave to the base optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hessdiag.errors import UsageError
from hessdiag.nso import NSO, WPSGD

D = torch.float64
KURTOSIS = {"gaussian": 3.0, "laplace": 6.0, "uniform": 1.8, "binomial": 2.5}
ENTRIES = 40_000


def fourth_power(w: float, **options: Any) -> tuple[Tensor, float]:
    """One step with lr 1 on the sum of w_i^4, every w_i = w: each entry's direction, and the mean loss of an entry."""
    weights = nn.Parameter(torch.full((ENTRIES,), w, dtype=D))
    optimizer = NSO([weights], lr=1.0, **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weights**4).sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    return w - weights.detach(), float(loss) / ENTRIES


@pytest.mark.parametrize("w", [0.0, 0.7, -1.2])
@pytest.mark.parametrize("distribution", KURTOSIS)
def test_mean_and_variance_on_the_fourth_power(distribution: str, w: float) -> None:
    sigma, kappa = 0.3, KURTOSIS[distribution]
    direction, loss = fourth_power(w, sigma=sigma, distribution=distribution)
    variance = 144 * w**2 * (kappa - 1) * sigma**4
    stderr = (variance / ENTRIES) ** 0.5
    assert abs(float(direction.mean()) - (4 * w**3 + 12 * w * sigma**2)) <= 4 * stderr + 1e-12
    # The relative standard error of a sample variance is sqrt((kurtosis - 1) / n); of the U^2 here it is below 40.
    assert float(direction.var()) == pytest.approx(variance, rel=4 * (40 / ENTRIES) ** 0.5, abs=1e-20)
    expected = w**4 + 6 * w**2 * sigma**2 + kappa * sigma**4
    spread = (w**4 + 6 * w**2 * sigma**2 + kappa * sigma**4) * 10 / ENTRIES**0.5
    assert abs(loss - expected) <= 4 * spread


def test_more_perturbations_are_a_mean() -> None:
    sigma, w = 0.3, 0.7
    ones = [float(fourth_power(w, sigma=sigma, num_perturbations=k)[0].var()) for k in (1, 2, 4)]
    assert ones[0] / ones[1] == pytest.approx(2, rel=0.1)
    assert ones[0] / ones[2] == pytest.approx(4, rel=0.1)


def test_the_uncentred_binomial_is_not_centred() -> None:
    direction, _ = fourth_power(0.0, sigma=0.1, distribution="binomial")
    assert float(direction.abs().max()) < 1e-15  # an odd function of U
    weights = nn.Parameter(torch.zeros(ENTRIES, dtype=D))
    optimizer = WPSGD([weights], lr=1.0, sigma=0.1, distribution="binomial-uncentered")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weights**2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    noise = -weights.detach()  # the gradient at U is U
    assert abs(float(noise.mean()) - 0.2) < 4 * 0.1 / ENTRIES**0.5
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_on_a_quadratic_every_draw_gives_the_plain_gradient(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(30, 30, generator=generator, dtype=D)
    H, b = A @ A.T, torch.randn(30, generator=generator, dtype=D)
    start = torch.randn(30, generator=generator, dtype=D)
    for method, plain in ((NSO, True), (WPSGD, False)):
        weights = nn.Parameter(start.clone())
        optimizer = method([weights], lr=1.0, sigma=0.5, seed=seed)

        def closure(weights: nn.Parameter = weights, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = weights @ H @ weights / 2 + b @ weights
            loss.backward()
            return loss

        optimizer.step(closure)
        direction = start - weights.detach()
        gradient = H @ start + b
        assert torch.allclose(direction, gradient, rtol=0, atol=1e-12 * float(gradient.norm())) is plain


def test_a_group_has_its_own_sigma() -> None:
    first, second = (nn.Parameter(torch.zeros(500, dtype=D)) for _ in range(2))
    groups = [{"params": [first], "sigma": 0.2}, {"params": [second]}]
    optimizer = WPSGD(groups, lr=1.0, sigma=0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (first**2).sum() / 2 + (second**2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(first.detach().std()) == pytest.approx(0.2, rel=0.15)
    assert not second.detach().any()


def test_draws_differ_by_step_number_and_seed() -> None:
    def path(seed: int, k: int = 1) -> list[Tensor]:
        weights = nn.Parameter(torch.zeros(50, dtype=D))
        optimizer = WPSGD([weights], lr=1.0, sigma=0.1, num_perturbations=k, seed=seed)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (weights**2).sum() / 2
            loss.backward()
            return loss

        steps = []
        for _ in range(2):
            before = weights.detach().clone()
            optimizer.step(closure)
            steps.append(before - weights.detach() - before)
        return steps

    first, second = path(0)
    assert not torch.equal(first, second)
    assert torch.equal(path(0)[0], first)
    assert not torch.equal(path(1)[0], first)
    assert not torch.equal(path(0, k=2)[0], first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": -0.1}, "sigma: found -0.1, expected a number of at least 0"),
        ({"sigma": float("nan")}, "sigma: found nan"),
        ({"sigma": 0.1, "num_perturbations": 0}, "num_perturbations: found 0, expected at least 1"),
        ({"sigma": 0.1, "distribution": "cauchy"}, "distribution: found 'cauchy', expected one of .*gaussian"),
        ({"sigma": 0.1, "distribution": "rademacher"}, "distribution: found 'rademacher'"),
        ({"sigma": 0.1, "seed": -1}, "seed: found -1"),
        ({"sigma": 0.1, "base": torch.optim.LBFGS}, "base: found LBFGS, expected an optimizer that steps once"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NSO([nn.Parameter(torch.zeros(2))], **options)


def test_no_closure() -> None:
    optimizer = NSO([nn.Parameter(torch.zeros(2))], sigma=0.1, lr=0.1)
    with pytest.raises(UsageError, match="step: found no closure"):
        optimizer.step()
