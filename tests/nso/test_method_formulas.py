"""Each method's update against its formula on flat vectors; RSP and SAP on the problem they were made for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from method_cases import CASES, Counted, examples, network, weights_of
from torch import Tensor, nn
from torch.func import functional_call

from hessdiag.errors import UsageError
from hessdiag.nso import ASAM, BSAM, RSAM, RSP, SAM, SAP
from hessdiag.nso.noise import Noise

D = torch.float64


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def gradient_at(model: nn.Module, shift: list[Tensor] | None = None, x: Tensor | None = None) -> list[Tensor]:
    """The gradient at the weights plus a shift, without touching the model."""
    inputs, y = examples()
    inputs = inputs if x is None else x
    names = [name for name, _ in model.named_parameters()]
    at = [p.detach() + (0 if shift is None else s) for p, s in zip(model.parameters(), shift or [0] * 99, strict=False)]
    at = [p.requires_grad_() for p in at]
    loss = nn.functional.cross_entropy(functional_call(model, dict(zip(names, at, strict=True)), inputs), y)
    return list(torch.autograd.grad(loss, at))


def check(model: nn.Module, step: Callable[[], object], expected: list[Tensor], rtol: float = 1e-10) -> None:
    """One step moves the weights by ``expected``."""
    before = weights_of(model)
    step()
    moved = flat(weights_of(model)) - flat(before)
    assert torch.allclose(moved, flat(expected), rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_sam(rho: float) -> None:
    model = network()
    optimizer = SAM(model.parameters(), rho=rho, lr=0.1)
    g = gradient_at(model)
    shift = [rho * part / flat(g).norm() for part in g]
    expected = [-0.1 * part for part in gradient_at(model, shift)]
    check(model, lambda: optimizer.step(Counted(model, optimizer, *examples())), expected)


@pytest.mark.parametrize("named", [True, False])
def test_asam(named: bool) -> None:
    model = network(norm=True).eval()
    options = {"rho": 0.7, "lr": 0.1}
    optimizer = ASAM(model.named_parameters(), **options) if named else ASAM(model.parameters(), model=model, **options)
    scales = [p.detach().abs() + 0.01 if "weight" in n else torch.ones_like(p) for n, p in model.named_parameters()]
    g = gradient_at(model)
    length = flat([t * part for t, part in zip(scales, g, strict=True)]).norm()
    shift = [0.7 * t**2 * part / length for t, part in zip(scales, g, strict=True)]
    expected = [-0.1 * part for part in gradient_at(model, shift)]
    check(model, lambda: optimizer.step(Counted(model, optimizer, *examples())), expected)


def test_asam_wants_names() -> None:
    with pytest.raises(UsageError, match="ASAM: found parameters without names"):
        ASAM(network().parameters(), rho=0.5, lr=0.1)


def test_rsam() -> None:
    model = network()
    model.append(nn.Conv1d(1, 2, 2, dtype=D))  # filters of three dimensions; not used by the loss
    loss_model = model[:3]
    optimizer = RSAM(model.parameters(), rho=0.3, sigma=0.2, lam=2.0, lr=0.1, seed=4)
    noise = Noise(list(model.parameters()), seed=4).draw(0, 0, [0.2] * 6)
    shift = []
    for p, u in zip(weights_of(model), noise, strict=True):
        rows = p.view(1, -1) if p.ndim == 1 else p.flatten(1)
        scale = rows.norm(dim=1).view(-1, *[1] * (p.ndim - 1))
        shift.append(scale * u)
    zeros = [torch.zeros_like(p) for p in model[3].parameters()]
    h = [2.0 * g + d for g, d in zip([*gradient_at(loss_model, shift[:4]), *zeros], shift, strict=True)]
    ascent = [0.3 * part / flat(h).norm() for part in h]
    expected = [-0.1 * part for part in gradient_at(loss_model, ascent[:4])] + zeros
    check(model, lambda: optimizer.step(Counted(loss_model, optimizer, *examples())), expected)


def test_bsam_for_several_steps() -> None:
    model = network()
    settings = {"lr": 0.05, "num_examples": 50, "rho": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.9), "damping": 0.2}
    optimizer = BSAM(model.parameters(), seed=2, **settings)  # type: ignore[arg-type]  # a mapping of numbers
    sizes = [p.numel() for p in model.parameters()]
    m, s = torch.zeros(sum(sizes), dtype=D), torch.ones(sum(sizes), dtype=D)

    def shaped(vector: Tensor) -> list[Tensor]:
        return [v.view_as(p) for v, p in zip(vector.split(sizes), model.parameters(), strict=True)]

    for step in range(4):
        w = flat(weights_of(model))
        n = flat(Noise(list(model.parameters()), seed=2).draw(step, 0, [1.0] * 4)) / (50 * s).sqrt()
        g = flat(gradient_at(model, shaped(n)))
        ascended = flat(gradient_at(model, shaped(0.02 * g / s)))
        m = 0.8 * m + 0.2 * (ascended + 0.1 * w)
        expected = shaped(-0.05 * m / s)
        s = 0.9 * s + 0.1 * (s.sqrt() * g.abs() + 0.2 + 0.1)
        check(model, lambda: optimizer.step(Counted(model, optimizer, *examples())), expected)


@pytest.mark.parametrize("far", [False, True])
def test_rsp(far: bool) -> None:
    model = network()
    optimizer = RSP(model.parameters(), rho=0.3, lr=0.1, descent_lr=0.02, eps0=1e-6 if far else math.inf, seed=3)
    G = gradient_at(model)
    rtol = 1e-10
    if far:
        expected = [-0.02 * g for g in G]
    else:
        u = [part.double() for part in Noise(list(model.parameters()), seed=3).draw(0, 0, [1.0] * 4)]
        shift = [0.3 * part / flat(u).norm() for part in u]
        expected = _step_along_and_across(G, gradient_at(model, shift))
        rtol = 1e-6  # the direction's length is taken in float32
    check(model, lambda: optimizer.step(Counted(model, optimizer, *examples())), expected, rtol)


def _step_along_and_across(G: list[Tensor], v: list[Tensor]) -> list[Tensor]:
    share = flat(G) @ flat(v) / flat(G).square().sum()
    return [-0.1 * (g + part - share * g) for g, part in zip(G, v, strict=True)]


def test_sap_takes_an_example_of_its_own() -> None:
    model = network()
    optimizer = SAP(model.parameters(), rho=0.3, lr=0.1, seed=3)
    x, y = examples()
    one = nn.functional.cross_entropy

    def example() -> Tensor:
        optimizer.zero_grad()
        loss = one(model(x[:1]), y[:1])
        loss.backward()
        return loss

    def example_gradient(shift: list[Tensor]) -> list[Tensor]:
        names = [name for name, _ in model.named_parameters()]
        at = [(p.detach() + s).requires_grad_() for p, s in zip(model.parameters(), shift, strict=True)]
        outputs = functional_call(model, dict(zip(names, at, strict=True)), x[:1])
        return list(torch.autograd.grad(one(outputs, y[:1]), at))

    G = gradient_at(model)
    g = example_gradient([torch.zeros_like(p) for p in model.parameters()])
    possible = []
    for sign in (1, -1):
        shift = [sign * 0.3 * part / flat(g).norm() for part in g]
        possible.append(flat(_step_along_and_across(G, example_gradient(shift))))
    before = flat(weights_of(model))
    optimizer.step(Counted(model, optimizer, x, y), example)
    moved = flat(weights_of(model)) - before
    assert any(torch.allclose(moved, one, rtol=1e-10, atol=1e-15) for one in possible)
    assert optimizer.evaluations == 3


@pytest.mark.parametrize("name", ["sam", "asam", "rsp", "sap"])
def test_without_a_gradient_there_is_no_ascent(name: str) -> None:
    """At a stationary point of every example nothing is divided by zero."""
    weights = nn.Parameter(torch.zeros(5, dtype=D))
    holder = nn.Module()
    holder.weight = weights
    optimizer = CASES[name](holder)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weights**4).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert bool(weights.isfinite().all())


# -- the flattening rate -----------------------------------------------------------------------------------


def flattened(method: type[RSP], seed: int) -> float:
    """||z||^2 after 200 steps on f = (1 + ||z||^2) x^2 / 2 with w = (x, z) in R^10."""
    weights = nn.Parameter(torch.tensor([1e-3] + [1 / 3] * 9, dtype=D))
    optimizer = method([weights], lr=0.1, rho=0.3, eps0=0.1, seed=seed)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (1 + weights[1:].square().sum()) * weights[0] ** 2 / 2
        loss.backward()
        return loss

    for _ in range(200):
        optimizer.step(closure)
    return float(weights.detach()[1:].square().sum())


def test_sap_flattens_as_many_times_faster_as_there_are_weights() -> None:
    sap = [flattened(SAP, seed) for seed in range(20)]
    rsp = [flattened(RSP, seed) for seed in range(20)]
    assert np.mean(sap) == pytest.approx(0.02688, rel=0.01)
    assert np.mean(rsp) == pytest.approx(0.6976, abs=4 * 0.02 / 20**0.5)
    ratio = np.mean(np.log(1 / np.array(sap))) / np.mean(np.log(1 / np.array(rsp)))
    assert ratio == pytest.approx(10, abs=0.6)


def test_a_random_iterate_is_each_of_them_equally_often() -> None:
    counts = np.zeros(4)
    for seed in range(400):
        weights = nn.Parameter(torch.zeros(1, dtype=D))
        optimizer = RSP([weights], lr=1.0, rho=0.1, random_iterate=True, seed=seed)

        def closure(weights: nn.Parameter = weights, optimizer: RSP = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = -weights.sum()
            loss.backward()
            return loss

        for _ in range(4):
            optimizer.step(closure)
        (iterate,) = optimizer.iterate()
        counts[round(float(iterate)) - 1] += 1
    assert counts.sum() == 400
    assert ((counts - 100) ** 2 / 100).sum() < 16.3  # chi squared, three degrees of freedom, one in a thousand


def test_no_iterate_is_kept_unasked() -> None:
    optimizer = RSP([nn.Parameter(torch.zeros(1))], lr=1.0, rho=0.1)
    with pytest.raises(UsageError, match="iterate: found no kept iterate"):
        optimizer.iterate()
