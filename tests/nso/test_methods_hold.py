"""What must hold for every training method, whatever its formula."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from method_cases import CASES, Case, Counted, examples, network, same, weights_of
from torch import Tensor, nn
from torch.amp import GradScaler

every_method = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_pass = pytest.mark.parametrize(
    ("case", "failing"),
    [
        pytest.param(case, number, id=f"{name}-pass{number}")
        for name, case in CASES.items()
        for number in range(1, case.gradients + 1)
    ],
)


@every_method
def test_without_a_learning_rate_nothing_moves(case: Case) -> None:
    model = network(norm=True)
    before = weights_of(model)
    optimizer = case(model, lr=0.0)
    for _ in range(3):
        optimizer.step(Counted(model, optimizer, *examples()))
    assert same(weights_of(model), before)


@every_method
def test_the_count_of_gradients(case: Case) -> None:
    model = network()
    optimizer = case(model)
    closure = Counted(model, optimizer, *examples())
    for _ in range(4):
        optimizer.step(closure)
    assert closure.calls == optimizer.evaluations == 4 * case.gradients
    assert optimizer.steps == 4
    assert optimizer.gradients_per_step >= case.gradients


@every_method
def test_displaced_passes_leave_no_trace_in_batch_norm(case: Case) -> None:
    """The statistics are those of one forward pass at the weights before the step."""
    model, twin = network(norm=True), network(norm=True)
    x, y = examples()
    optimizer = case(model)
    for _ in range(3):
        twin.load_state_dict(model.state_dict())
        twin(x)
        optimizer.step(Counted(model, optimizer, x, y))
        for found, expected in zip(model.buffers(), twin.buffers(), strict=True):
            assert torch.equal(found, expected)
    assert int(model[1].num_batches_tracked) == 3
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm1d))


@every_method
def test_statistics_of_micro_batches_are_recorded_one_by_one(case: Case) -> None:
    model, twin = network(norm=True), network(norm=True)
    x, y = examples()
    optimizer = case(model)
    optimizer.step(Counted(model, optimizer, x, y, pieces=3))
    for piece in x.chunk(3):
        twin(piece)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))


@every_method
def test_layers_in_evaluation_keep_their_statistics(case: Case) -> None:
    model = network(norm=True)
    model[1].eval()
    before = [b.clone() for b in model.buffers()]
    optimizer = case(model)
    closure = Counted(model, optimizer, *examples())
    optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before, strict=True))


@every_method
def test_all_micro_batches_of_a_step_have_one_displacement(case: Case) -> None:
    whole, parts = network(), network()
    x, y = examples()
    for model, pieces in ((whole, 1), (parts, 4)):
        optimizer = case(model)
        for _ in range(3):
            optimizer.step(Counted(model, optimizer, x, y, pieces=pieces))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)


@every_pass
def test_the_weights_are_put_back_after_an_exception(case: Case, failing: int) -> None:
    model = network()
    optimizer = case(model)
    closure = Counted(model, optimizer, *examples())
    before = weights_of(model)

    def fails() -> Tensor:
        if closure.calls + 1 == failing:
            raise KeyboardInterrupt
        return closure()

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(fails)
    assert same(weights_of(model), before)
    assert optimizer.steps == 0


@every_method
def test_passes_are_where_they_should_be(case: Case) -> None:
    """All displaced but the first of those that begin at w, and w itself untouched in between."""
    model = network()
    optimizer = case(model)
    before = weights_of(model)
    closure = Counted(model, optimizer, *examples())
    optimizer.step(closure)
    displaced = [not same(weights, before) for weights in closure.seen]
    assert displaced[0] is not case.clean
    assert all(displaced[2 if "sap" in str(optimizer.__class__).lower() else 1 :])


@every_method
def test_a_step_goes_on_from_a_saved_state(case: Case) -> None:
    model, other = network(), network(seed=5)
    x, y = examples()
    optimizer = case(model, momentum=0.9)
    for _ in range(3):
        optimizer.step(Counted(model, optimizer, x, y))
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict())
    for _ in range(3):
        optimizer.step(Counted(model, optimizer, x, y))
    resumed = case(other, momentum=0.9)
    other.load_state_dict(saved)
    resumed.load_state_dict(state)
    for _ in range(3):
        resumed.step(Counted(other, resumed, x, y))
    assert same(weights_of(model), weights_of(other))
    assert (resumed.steps, resumed.evaluations) == (6, 6 * case.gradients)


@every_method
def test_what_is_frozen_stays(case: Case) -> None:
    model = network()
    for p in model[0].parameters():
        p.requires_grad_(False)
    frozen = weights_of(model[0])
    optimizer = case(model)
    closure = Counted(model, optimizer, *examples())
    before = weights_of(model[2])
    optimizer.step(closure)
    assert all(same(weights[:2], frozen) for weights in closure.seen)
    assert same(weights_of(model[0]), frozen)
    assert not same(weights_of(model[2]), before)


@every_method
def test_a_parameter_without_a_gradient_stays(case: Case) -> None:
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(4, dtype=torch.float64)))
    optimizer = case(model)
    optimizer.step(Counted(model, optimizer, *examples()))
    assert torch.equal(model.unused.detach(), torch.ones(4, dtype=torch.float64))


@every_method
def test_schedulers_and_added_groups(case: Case) -> None:
    model, more = network(), network(seed=3)
    optimizer = case(nn.ModuleList([model, more]), params=list(model.parameters()))
    optimizer.add_param_group({"params": list(more.parameters()), "lr": 0.5})
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            optimizer.step(Counted(model, optimizer, *examples()))
            schedule.step()
    assert [group["lr"] for group in optimizer.base.param_groups] == pytest.approx([0.001, 0.005])
    assert optimizer.base.param_groups is optimizer.param_groups


@every_method
def test_scaled_losses_give_the_same_step(case: Case) -> None:
    """A power of two as scale changes nothing in float32; the scaler is updated once a step."""
    plain, scaled = (network(dtype=torch.float32) for _ in range(2))
    x, y = examples(dtype=torch.float32)
    scaler = GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    optimizers = case(plain), case(scaled, scaler=scaler)
    for step in range(4):
        optimizers[0].step(Counted(plain, optimizers[0], x, y))
        assert scaler.get_scale() == (2048.0 if step == 3 else 1024.0)
        optimizers[1].step(_scaled(scaled, optimizers[1], scaler, x, y))
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=2e-5, atol=1e-7)


@every_pass
def test_a_pass_that_is_not_finite_leaves_the_step_out(case: Case, failing: int) -> None:
    model = network(dtype=torch.float32)
    scaler = GradScaler("cpu", init_scale=1024.0)
    optimizer = case(model, scaler=scaler)
    before = weights_of(model)
    closure = _scaled(model, optimizer, scaler, *examples(dtype=torch.float32))
    calls = 0

    def overflows() -> Tensor:
        nonlocal calls
        calls += 1
        loss = closure()
        if calls == failing:
            next(model.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]
        return loss

    optimizer.step(overflows)
    assert same(weights_of(model), before)
    assert scaler.get_scale() == 512.0
    assert all(bool(v.isfinite().all()) for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v))


def _scaled(model: nn.Module, optimizer: Any, scaler: GradScaler, x: Tensor, y: Tensor) -> Any:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        return loss

    return closure


@every_method
def test_autocast(case: Case) -> None:
    model = network(norm=True, dtype=torch.float32)
    x, y = examples(dtype=torch.float32)
    optimizer = case(model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    first = float(optimizer.step(closure))
    for _ in range(20):
        last = float(optimizer.step(closure))
    assert last < first
    assert int(model[1].num_batches_tracked) == 21


@pytest.mark.parametrize("name", [name for name in CASES if name != "bsam"])
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adam])
def test_any_base_optimizer(name: str, base: type[torch.optim.Optimizer]) -> None:
    """The base steps from w with the direction, weight decay at w: as it would by itself on these gradients."""
    model, twin = network(), network()
    optimizer = CASES[name](model, base=base, lr=0.01, weight_decay=0.3)
    alone = base(twin.parameters(), lr=0.01, weight_decay=0.3)  # type: ignore[call-arg]
    for _ in range(3):
        optimizer.step(Counted(model, optimizer, *examples()))
        for mine, p in zip(model.parameters(), twin.parameters(), strict=True):
            p.grad = mine.grad.clone()
        alone.step()
        assert same(weights_of(model), weights_of(twin))


@pytest.mark.parametrize("name", [name for name in CASES if name != "bsam"])
def test_the_direction_is_clipped_and_not_the_passes(name: str) -> None:
    model, twin = network(), network()
    whole, clipped = CASES[name](twin), CASES[name](model, clip_norm=0.01)
    whole.step(Counted(twin, whole, *examples()))
    clipped.step(Counted(model, clipped, *examples()))
    directions = [torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (twin, model)]
    assert float(directions[1].norm()) == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(directions[0] / directions[0].norm(), directions[1] / directions[1].norm(), atol=1e-12)
