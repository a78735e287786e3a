"""A spec becomes a problem: device, dtype, loss, and a model that is the same every time."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch.nn import functional as F

from hessdiag.errors import HessdiagError, MeasurementError, UsageError
from hessdiag.loading import load_problem
from hessdiag.spec import load_spec


@pytest.fixture
def spec(tmp_path):
    return tiny.write(tmp_path)


def test_the_loss_is_the_checkpoints(spec):
    x, y = (torch.from_numpy(array) for array in tiny.arrays().values())
    expected = F.cross_entropy(tiny.network()(x), y).item()
    problem = tiny.load(spec)
    assert problem.loss_value == pytest.approx(expected, rel=1e-6)
    assert problem.n == tiny.PARAMETERS
    assert problem.checkpoint.path == "weights.safetensors"


def test_without_a_checkpoint_the_weights_are_those_of_the_factory_and_the_same_every_time(spec):
    torch.manual_seed(1)
    first = tiny.load(spec, "model.checkpoint=null")
    torch.manual_seed(2)
    second = tiny.load(spec, "model.checkpoint=null")
    assert first.loss_value == second.loss_value != tiny.load(spec).loss_value
    assert first.checkpoint is None


def test_loading_leaves_the_random_state_alone(spec):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    tiny.load(spec)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtypes(spec, dtype):
    problem = tiny.load(spec, dtype=dtype)
    assert {p.dtype for p in problem.model.parameters()} == {getattr(torch, dtype)}
    assert problem.loss_value == pytest.approx(tiny.load(spec).loss_value, rel=0.05)


def test_float64_is_exact_where_float32_is_rounded(spec):
    x, y = (torch.from_numpy(array) for array in tiny.arrays().values())
    expected = F.cross_entropy(tiny.network().double()(x.double()), y).item()
    assert tiny.load(spec, dtype="float64").loss_value == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", ["half", "float16", "FLOAT32", ""])
def test_unknown_dtypes(spec, dtype):
    with pytest.raises(UsageError, match="expected float32, float64, bfloat16"):
        tiny.load(spec, dtype=dtype)


@pytest.mark.parametrize("device", ["nonsense", "", "cpu:3", "meta", "cuda:x", "cuda:99"])
def test_unknown_devices(spec, device):
    with pytest.raises(UsageError, match="device: found"):
        tiny.load(spec, device=device)


def test_auto_is_the_cpu_where_there_is_no_more(spec):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert tiny.load(spec, device="auto").device.type == expected


LOSSES = {
    "units": "def loss(outputs, targets): return F.cross_entropy(outputs, targets, reduction='none')",
    "sum and count": "def loss(outputs, targets):\n"
    "    return F.cross_entropy(outputs, targets, reduction='sum'), len(targets)",
    "mean": "def loss(outputs, targets): return F.cross_entropy(outputs, targets)",
    "module": "class loss(torch.nn.Module):\n"
    "    def forward(self, outputs, targets): return F.cross_entropy(outputs, targets, reduction='none')",
    "instance": "loss = torch.nn.CrossEntropyLoss()",
    "partial": "loss = functools.partial(F.cross_entropy, reduction='none')",
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_from_a_file(spec, name):
    code = f"import functools\nimport torch\nfrom torch.nn import functional as F\n{LOSSES[name]}\n"
    (spec.parent / "loss.py").write_text(code)
    assert tiny.load(spec, "loss=loss.py:loss").loss_value == pytest.approx(tiny.load(spec).loss_value, rel=1e-6)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("loss = 3", UsageError, "is an int, expected a function"),
        ("def other(): pass", UsageError, "found no 'loss'"),
        ("1 / 0", HessdiagError, "importing it failed"),
        (
            "import torch\nclass loss(torch.nn.Module):\n    def __init__(self, x): 0",
            HessdiagError,
            "failed: TypeError",
        ),
        ("def loss(outputs, targets): return 3.0", HessdiagError, "returned a float"),
    ],
)
def test_bad_losses_from_a_file(spec, code, kind, words):
    (spec.parent / "loss.py").write_text(code)
    with pytest.raises(kind, match="loss") as caught:
        tiny.load(spec, "loss=loss.py:loss")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("build = 3", UsageError, "is an int, expected a function"),
        (
            "from torch import nn\ndef build(): return nn.LazyLinear(3)",
            UsageError,
            "built lazy layers (first: weight), whose shapes show only with a first batch: give them their sizes, or "
            "let the function call the network on an example",
        ),
        ("def build(): return 3", UsageError, "built an int, expected an nn.Module"),
        ("def build(): raise KeyError", HessdiagError, "model.py:build() failed: KeyError"),
    ],
)
def test_bad_factories(spec, code, kind, words):
    (spec.parent / "model.py").write_text(code)
    with pytest.raises(kind) as caught:
        tiny.load(spec)
    assert str(caught.value).startswith("model.class_path: ")
    assert str(caught.value).rstrip().endswith(words)


def test_parameters_are_selected_by_pattern(spec):
    problem = tiny.load(spec, "parameters.include=['0.*']", "parameters.exclude=['*.bias']")
    assert [group.name for group in problem.groups] == ["0.weight"]
    with pytest.raises(MeasurementError, match="select nothing"):
        tiny.load(spec, "parameters.exclude=['*']")


def test_the_model_is_left_as_it_was_loaded(spec):
    import hessdiag

    problem = tiny.load(spec)
    before = {name: item.clone() for name, item in problem.model.state_dict().items()}
    flags = [module.training for module in problem.model.modules()]
    trace = hessdiag.trace(hessdiag.HessianOperator(problem), max_matvecs=2)
    hessdiag.noise_gap(problem, sigmas=[0.5], draws=3, trace=trace)
    assert all(torch.equal(item, before[name]) for name, item in problem.model.state_dict().items())
    assert [module.training for module in problem.model.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in problem.model.parameters())


def test_float64_weights_are_measured_as_they_are(tmp_path):
    spec = tiny.write(tmp_path)
    exact = {name: item.double() + 1e-10 for name, item in tiny.weights().items()}
    torch.save(exact, tmp_path / "w.pt")
    found = load_problem(load_spec(spec, ["model.checkpoint=w.pt"]), dtype="float64").model.state_dict()
    assert all(torch.equal(found[name], item) for name, item in exact.items())
