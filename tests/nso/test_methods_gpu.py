"""The training methods on a CUDA device: nothing on the wrong device, weights put back, runs that go on."""

from __future__ import annotations

import copy

import pytest
import torch
from method_cases import CASES, Case, Counted, examples, network, same, weights_of
from torch.amp import GradScaler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
every_method = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def on_cuda(norm: bool = True):
    x, y = examples(dtype=torch.float32)
    return network(norm=norm, dtype=torch.float32).cuda(), x.cuda(), y.cuda()


@every_method
def test_steps_and_resumption(case: Case) -> None:
    model, x, y = on_cuda()
    optimizer = case(model, momentum=0.9)
    before = weights_of(model)
    for _ in range(2):
        optimizer.step(Counted(model, optimizer, x, y))
    assert not same(weights_of(model), before)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    other, _, _ = on_cuda()
    resumed = case(other, momentum=0.9)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step(Counted(model, optimizer, x, y))
    resumed.step(Counted(other, resumed, x, y))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


@every_method
def test_without_a_learning_rate_nothing_moves(case: Case) -> None:
    model, x, y = on_cuda()
    before = weights_of(model)
    optimizer = case(model, lr=0.0)
    optimizer.step(Counted(model, optimizer, x, y))
    assert same(weights_of(model), before)
    assert int(model[1].num_batches_tracked) == 1


@every_method
def test_float16_with_a_scaler(case: Case) -> None:
    model, x, y = on_cuda()
    scaler = GradScaler("cuda", init_scale=128.0)
    optimizer = case(model, scaler=scaler, lr=0.01)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        return loss

    first = float(optimizer.step(closure))
    for _ in range(20):
        last = float(optimizer.step(closure))
    assert last < first
