"""After any call the model is bit for bit what it was, also after an exception or Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.models import TiedByAttribute, with_statistics
from torch import Tensor, nn

from hessdiag import HessianOperator, Problem, noise_gap, trace
from hessdiag.curvature import dense_hessian
from hessdiag.errors import MeasurementError
from hessdiag.problem.backends import exact_backends
from hessdiag.results import TraceResult


class Disorderly(nn.Module):
    """Everything that a measurement could disturb: statistics, counters, flags, a frozen weight, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 4), nn.Linear(4, 3)
        )
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(3))
        self.raises: BaseException | None = None
        self.calls_left = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        self.last.copy_(x[0].detach())
        hidden = self.body[:3](x)
        torch.rand(2)
        self.calls_left -= 1
        if self.raises is not None and self.calls_left < 0:
            raise self.raises
        return self.body[3:](hidden)


def disorderly() -> Disorderly:
    model = with_statistics(Disorderly())
    model.train()
    model.body[1].eval()
    model.body[4].eval()
    model.body[4].requires_grad_(False)
    model.body[0].weight.grad = torch.full((4, 3), 0.25)
    model.body[5].bias.grad = torch.randn(3)
    model.body[2].register_forward_hook(lambda module, args, outputs: None)
    return model


torch.manual_seed(0)
BATCHES = [(torch.randn(5, 3), torch.arange(5) % 3), (torch.randn(2, 3), torch.arange(2))]

SETTINGS: dict[str, Callable[[], Any]] = {
    "random state": lambda: torch.get_rng_state().tolist(),
    "gradients on": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
    "matmul precision": torch.get_float32_matmul_precision,
    "TF32 matmul": lambda: torch.backends.cuda.matmul.allow_tf32,
    "TF32 cuDNN": lambda: torch.backends.cudnn.allow_tf32,
    "precisions": lambda: [
        backend.fp32_precision
        for backend in (
            torch.backends,
            torch.backends.cuda.matmul,
            torch.backends.cudnn,
            torch.backends.cudnn.conv,
            torch.backends.cudnn.rnn,
            torch.backends.mkldnn,
            torch.backends.mkldnn.matmul,
            torch.backends.mkldnn.conv,
            torch.backends.mkldnn.rnn,
        )
    ],
    "cuDNN": lambda: (
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    ),
    "flash": torch.backends.cuda.flash_sdp_enabled,
    "math": torch.backends.cuda.math_sdp_enabled,
    "memory efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
    "cuDNN attention": torch.backends.cuda.cudnn_sdp_enabled,
    "encoder": torch.backends.mha.get_fastpath_enabled,
    "default dtype": torch.get_default_dtype,
    "threads": torch.get_num_threads,
}


class Snapshot:
    """Everything about a model and torch that must not change."""

    def __init__(self, model: nn.Module) -> None:
        self.objects = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
        self.buffers = {name: (id(b), b.clone()) for name, b in model.named_buffers(remove_duplicate=False)}
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.grads = {name: (id(p.grad), None if p.grad is None else p.grad.clone()) for name, p in _named(model)}
        self.wanted = {name: p.requires_grad for name, p in _named(model)}
        self.flags = {name: module.training for name, module in model.named_modules()}
        self.hooks = {name: _hooks(module) for name, module in model.named_modules()}
        self.settings = {name: _read(read) for name, read in SETTINGS.items()}

    def compare(self, other: Snapshot) -> None:
        assert self.objects == other.objects
        assert self.flags == other.flags
        assert self.wanted == other.wanted
        assert self.hooks == other.hooks
        assert self.settings == other.settings
        for mine, theirs in ((self.buffers, other.buffers), (self.grads, other.grads)):
            assert mine.keys() == theirs.keys()
            for name, (identity, value) in mine.items():
                assert theirs[name][0] == identity, name
                assert _same_bits(value, theirs[name][1]), name
        for name, value in self.weights.items():
            assert _same_bits(value, other.weights[name]), name


def _read(setting: Callable[[], Any]) -> Any:
    try:
        return setting()
    except RuntimeError as error:  # torch's words for settings made in its old way and in its new one
        return str(error)


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(model.named_parameters())


def _hooks(module: nn.Module) -> tuple[int, ...]:
    return (
        len(module._forward_hooks),
        len(module._forward_pre_hooks),
        len(module._backward_hooks),
        len(module._backward_pre_hooks),
    )


def _same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))


def ones(problem: Problem, k: int | None = None) -> Tensor:
    return torch.ones(problem.n, dtype=problem.dtype) if k is None else torch.ones(problem.n, k, dtype=problem.dtype)


def refused(measure: Callable[[], Any]) -> None:
    with pytest.raises(MeasurementError):
        measure()


def rough_trace(problem: Problem) -> TraceResult:
    return trace(HessianOperator(problem), max_matvecs=16)


def displaced(problem: Problem) -> None:
    with problem.displacing() as displace:
        displace(problem.unflatten(ones(problem)), 0.1)


CALLS: dict[str, Callable[[Problem], Any]] = {
    "gradient": Problem.gradient,
    "matvec": lambda p: HessianOperator(p).matvec(ones(p)),
    "matmat": lambda p: HessianOperator(p, chunk=2).matmat(ones(p, 3)),
    "forward over reverse": lambda p: refused(lambda: HessianOperator(p, engine="forward-over-reverse")),
    "quadratic forms": lambda p: HessianOperator(p).quadratic_forms(lambda probe, batch: ones(p), [0, 1]),
    "displacing": displaced,
    "finite differences": lambda p: HessianOperator(p.in_float64(), engine="finite-differences"),
    "noise gap": lambda p: noise_gap(p, sigmas=[0.01, 0.1], draws=3, trace=rough_trace(p)),
    "dense Hessian": dense_hessian,
    "copy in float64": Problem.in_float64,
}


def test_making_a_problem_leaves_the_model_as_found() -> None:
    model = disorderly()
    before = Snapshot(model)
    Problem(model, "cross_entropy", BATCHES)
    before.compare(Snapshot(model))


@pytest.mark.parametrize("interrupted", [False, True])
def test_parameters_that_are_not_selected_still_require_gradients_afterwards(interrupted: bool) -> None:
    model = disorderly()
    problem = Problem(model, "cross_entropy", BATCHES, include=["body.0.*"])
    before = Snapshot(model)
    assert before.wanted["body.5.weight"]
    with problem.measuring():
        assert not model.body[5].weight.requires_grad
    if interrupted:
        model.raises, model.calls_left = KeyboardInterrupt("stop"), 1
        with pytest.raises(KeyboardInterrupt):
            problem.gradient()
    else:
        HessianOperator(problem).matvec(ones(problem))
    before.compare(Snapshot(model))


def test_making_a_problem_from_a_data_loader_leaves_the_random_state_as_found() -> None:
    model = disorderly()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*BATCHES[0]), batch_size=2)
    before = Snapshot(model)
    Problem(model, "cross_entropy", loader)
    before.compare(Snapshot(model))


@pytest.mark.parametrize("call", CALLS)
def test_every_call_leaves_the_model_as_found(call: str) -> None:
    model = disorderly()
    problem = Problem(model, "cross_entropy", BATCHES)
    before = Snapshot(model)
    CALLS[call](problem)
    before.compare(Snapshot(model))


def test_finite_differences_leave_the_very_model_as_found() -> None:
    model = disorderly().double()
    problem = Problem(model, "cross_entropy", BATCHES)
    before = Snapshot(model)
    HessianOperator(problem, engine="finite-differences").matvec(ones(problem))
    before.compare(Snapshot(model))


@pytest.mark.parametrize("calls_before", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize("call", ["problem", "gradient", "matvec", "displacing", "quadratic forms", "noise gap"])
def test_exceptions_midway_leave_the_model_as_found(call: str, kind: type[BaseException], calls_before: int) -> None:
    model = disorderly()
    if call == "problem":
        before = Snapshot(model)
        model.raises, model.calls_left = kind("stop"), calls_before
        with pytest.raises((MeasurementError, kind), match="stop"):
            Problem(model, "cross_entropy", BATCHES)
        before.compare(Snapshot(model))
        return
    problem = Problem(model, "cross_entropy", BATCHES)
    H, known = HessianOperator(problem), rough_trace(problem)
    before = Snapshot(model)
    model.raises, model.calls_left = kind("stop"), calls_before if call != "gradient" else min(calls_before, 2)
    calls: dict[str, Callable[[], Any]] = {
        "gradient": problem.gradient,
        "matvec": lambda: [H.matvec(ones(problem)) for _ in range(3)],
        "quadratic forms": lambda: [H.quadratic_forms(lambda probe, batch: ones(problem), [0]) for _ in range(3)],
        "displacing": lambda: displaced_and_run(problem),
        "noise gap": lambda: noise_gap(problem, sigmas=[0.1], draws=3, trace=known),
    }
    with pytest.raises((MeasurementError, kind), match="stop"):
        calls[call]()
    before.compare(Snapshot(model))


def displaced_and_run(problem: Problem) -> None:
    with problem.displacing() as displace:
        for scale in (0.1, -0.1, 0.2, -0.2):
            displace(problem.unflatten(ones(problem)), scale)
            for batch in problem.batches():
                problem.batch_totals(batch)


def test_a_problem_works_again_after_an_interrupt() -> None:
    model = disorderly()
    problem = Problem(model, "cross_entropy", BATCHES)
    H = HessianOperator(problem)
    expected = H.matvec(ones(problem))
    model.raises, model.calls_left = KeyboardInterrupt("stop"), 1
    with pytest.raises(KeyboardInterrupt):
        H.matvec(ones(problem))
    model.raises = None
    assert torch.equal(H.matvec(ones(problem)), expected)


@pytest.mark.parametrize("engine", ["forward-over-reverse", "finite-differences"])
def test_a_module_under_two_names_stays_one(engine: str) -> None:
    model = TiedByAttribute().double()
    before = Snapshot(model)
    problem = Problem(model, "cross_entropy", [(BATCHES[0][0], BATCHES[0][1])])
    HessianOperator(problem, engine=engine).matvec(ones(problem))
    before.compare(Snapshot(model))
    assert isinstance(model.first.weight, nn.Parameter)


def set_legacy() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = False


def set_medium() -> None:
    torch.set_float32_matmul_precision("medium")


def set_new() -> None:
    torch.backends.fp32_precision = "tf32"
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


def set_attention() -> None:
    torch.backends.cuda.enable_math_sdp(False)
    torch.backends.mha.set_fastpath_enabled(False)


def test_cudnn_is_off_for_recurrent_layers_alone() -> None:
    gpu = torch.device("cuda")  # nothing runs on it
    before = torch.backends.cudnn.enabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast says that there is no such device
        with exact_backends(nn.Sequential(nn.GRU(2, 2)), gpu):
            assert not torch.backends.cudnn.enabled
        with exact_backends(nn.Conv1d(2, 2, 2), gpu):
            assert torch.backends.cudnn.enabled == before
    assert torch.backends.cudnn.enabled == before


def test_settings_that_the_caller_made_are_put_back() -> None:
    """In a process of its own, as some of them cannot be taken back."""
    here = Path(__file__).resolve().parent
    program = f"""
import sys
sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]
import conftest, torch, test_problem_as_found as t
t.Problem(t.disorderly(), "cross_entropy", t.BATCHES)
for general in ("tf32", "ieee"):  # what followed the general setting still follows it
    torch.backends.fp32_precision = general
    assert set(t.SETTINGS["precisions"]()) == {{general}}
for setting in (t.set_attention, t.set_legacy, t.set_medium, t.set_new):
    setting()
    model = t.disorderly()
    before = t.Snapshot(model)
    problem = t.Problem(model, "cross_entropy", t.BATCHES)
    t.HessianOperator(problem).matvec(t.ones(problem))
    before.compare(t.Snapshot(model))
    print(setting.__name__, before.settings["precisions"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "set_new ['tf32'" in done.stdout
