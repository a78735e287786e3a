"""What users' models and loaders do that would change the numbers behind a measurement's back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hessdiag import HessianOperator, Problem, audit, load, noise_gap
from hessdiag.errors import MeasurementError
from hessdiag.spec.schema import AuditSpec, GapSpec

DIGITS = Path(__file__).parents[2] / "fixtures" / "digits" / "audit.yaml"


def regression(model: nn.Module | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 3, generator=generator), torch.randn(12, 2, generator=generator)
    return model or nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), x, y


class Refilling:
    """A loader that gives one buffer again and again, filled anew; NumPy writes leave no trace in torch."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.buffers = np.empty((4, 3), "f"), np.empty((4, 2), "f")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.x), 4):
            for buffer, data in zip(self.buffers, (self.x, self.y), strict=True):
                buffer[:] = data[start : start + 4].numpy()
            yield torch.from_numpy(self.buffers[0]), torch.from_numpy(self.buffers[1])


def test_a_loader_that_refills_one_buffer_is_read_anew() -> None:
    model, x, y = regression()
    v = torch.randn(Problem(model, "mse", [(x, y)]).n)
    expected = HessianOperator(Problem(model, "mse", [(x, y)])).matvec(v)
    found = HessianOperator(Problem(model, "mse", Refilling(x, y))).matvec(v)
    torch.testing.assert_close(found, expected)


def test_gradient_hooks_are_off_while_measuring_and_on_afterwards() -> None:
    model, x, y = regression()
    expected = Problem(model, "mse", [(x, y)]).gradient()
    model[0].weight.register_hook(lambda gradient: gradient * 0)
    problem = Problem(model, "mse", [(x, y)])
    torch.testing.assert_close(problem.gradient(), expected)
    nn.functional.mse_loss(model(x), y).backward()
    assert float(model[0].weight.grad.abs().max()) == 0


def test_an_expanded_buffer_is_left_alone() -> None:
    model, x, y = regression()
    model.register_buffer("mask", torch.zeros(1).expand(3))
    assert Problem(model, "mse", [(x, y)]).gradient().isfinite().all()


def test_a_product_that_is_not_finite_in_a_later_batch_is_refused() -> None:
    class Power(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.w) ** 1.5

    x, y = torch.rand(4, 3) + 1, torch.ones(4)
    H = HessianOperator(Problem(Power(), "mse", [(x, y), (torch.zeros(4, 3), y)]))
    with pytest.raises(MeasurementError, match=r"not finite although the loss is.*square root"):
        H.matvec(torch.ones(3))
    with pytest.raises(MeasurementError, match="not finite although the loss is"):
        H.quadratic_forms(lambda probe, batch: torch.ones(3), [0])


def test_loading_a_model_seeds_nobody_elses_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    load(DIGITS)
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), before)


def test_an_audit_of_a_loaded_spec_measures_what_the_spec_asks_for() -> None:
    overrides = ["audit={eigenvalues: {top: 2, bottom: 0}, trace: null, gap: null}", "data.max_examples=50"]
    report = audit(load(DIGITS, overrides=overrides))
    assert report.eigenvalues is not None
    assert len(report.eigenvalues.largest) == 2
    assert report.trace is None
    assert report.gap is None


def test_a_model_that_moved_is_measured_where_it_is() -> None:
    """One problem, measured again after a training step."""
    model, x, y = regression()
    problem, plan = Problem(model, "mse", [(x, y)]), AuditSpec(gap=GapSpec(sigma=(0.01,), draws=8))
    first = audit(problem, plan)
    with torch.no_grad():
        model[0].weight.add_(0.5)
    again, fresh = audit(problem, plan), audit(Problem(model, "mse", [(x, y)]), plan)
    assert again.loss == fresh.loss != first.loss
    assert again.trace == replace(fresh.trace, cost=again.trace.cost)
    assert again.gap.rows == fresh.gap.rows == noise_gap(problem, sigmas=0.01, draws=8, trace=again.trace).rows
