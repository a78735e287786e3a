"""What cannot be measured is refused: the kind of failure, its exit code, what was found, expected, and to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracles.models import Lambda, OwnLoss, mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from hessdiag import HessianOperator, Problem
from hessdiag.errors import DataError, HessdiagError, MeasurementError, UsageError
from hessdiag.losses import BCEWithLogits, CrossEntropy

torch.manual_seed(0)
X, Y = torch.randn(6, 3), torch.arange(6) % 3
GOOD = [(X, Y)]


class FailsMidway:
    """Data whose second batch cannot be read."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        yield X[:3], Y[:3]
        raise self.error


class Ragged(Dataset):
    """Examples of different lengths, that a DataLoader cannot stack."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return torch.zeros(place + 1), 0


class Raises(nn.Module):
    """Runs until it meets its batch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.body, self.error = nn.Linear(3, 3), error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 6:
            raise self.error
        return self.body(x)


def spoiled(value: float, name: str = "0.weight") -> nn.Module:
    model = mlp(3, 4, 3)
    dict(model.named_parameters())[name].data.view(-1)[0] = value
    return model


def with_bad_statistics() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[1].running_mean[1] = torch.nan
    return model


def frozen() -> nn.Module:
    return mlp(3, 4, 3).requires_grad_(False)


def half_and_half() -> nn.Module:
    model = mlp(3, 4, 3)
    model[2].double()
    return model


def two_over_one_memory() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data = model[0].weight.data
    return model


def in_place() -> nn.Module:
    return nn.Sequential(Lambda(lambda x: x.sub_(0.5)), nn.Linear(3, 3))


def problem(model: Any = None, loss: Any = "cross_entropy", data: Any = GOOD, **options: Any) -> Problem:
    return Problem(mlp(3, 4, 3) if model is None else model, loss, data, **options)


def own_loss(returns: Any) -> Callable[[Any, Any], Any]:
    return lambda outputs, targets: returns


Case = tuple[Callable[[], Any], type[HessdiagError], list[str]]

CASES: dict[str, Case] = {
    # the data
    "a generator": (
        lambda: problem(data=(batch for batch in GOOD)),
        UsageError,
        ["found a generator", "read once", "expected", "DataLoader"],
    ),
    "zipped": (lambda: problem(data=zip([X], [Y], strict=True)), UsageError, ["found a zip", "read once"]),
    "no data": (lambda: problem(data=7), UsageError, ["found a int", "expected batches"]),
    "no batches": (lambda: problem(data=[]), DataError, ["no examples", "expected at least one"]),
    "no examples": (lambda: problem(data=[(X[:0], Y[:0])]), DataError, ["no examples", "expected at least one"]),
    "three in a batch": (
        lambda: problem(data=[(X, Y, Y)]),
        DataError,
        ["batch 0", "tuple of length 3", "expected (inputs, targets)"],
    ),
    "a bare tensor": (lambda: problem(data=[X]), DataError, ["batch 0", "Tensor", "expected (inputs, targets)"]),
    "one batch, not a list of them": (lambda: problem(data=(X, Y)), DataError, ["expected (inputs, targets)"]),
    "a mapping without targets": (
        lambda: problem(data=[{"x": X, "classes": Y}]),
        DataError,
        ["['classes', 'x']", "expected the targets under one of labels"],
    ),
    "nothing to count": (lambda: problem(data=[("a", "b")]), DataError, ["batch 0", "no tensor"]),
    "a file that breaks off": (
        lambda: problem(data=FailsMidway(OSError("disk gone"))),
        DataError,
        ["could not be read", "disk gone", "OSError"],
    ),
    "a data set with a bug": (
        lambda: problem(data=FailsMidway(KeyError("label"))),
        DataError,
        ["could not be read", "KeyError", "label"],
    ),
    "examples that do not stack": (
        lambda: problem(data=DataLoader(Ragged(), batch_size=2)),
        DataError,
        ["could not be read, at batch 0", "stack expects each tensor to be equal size"],
    ),
    # targets
    "class too big": (
        lambda: problem(data=[(X, Y + 1)]),
        DataError,
        ["found targets from 1 to 3", "expected class numbers from 0 to 2", "3 outputs"],
    ),
    "class too small": (lambda: problem(data=[(X, Y - 1)]), DataError, ["found targets from -1 to 1", "from 0 to 2"]),
    "classes in floating point": (
        lambda: problem(data=[(X, Y.float())]),
        DataError,
        ["targets (6,) of type float32", "expected int64", "probabilities of the outputs' shape (6, 3)"],
    ),
    "classes as booleans": (lambda: problem(data=[(X, Y > 0)]), DataError, ["type bool", "expected int64"]),
    "classes in two columns": (
        lambda: problem(data=[(X, torch.stack([Y, Y], 1))]),
        DataError,
        ["outputs (6, 3) and targets (6, 2)", "expected", "(batch, classes, ...)"],
    ),
    "fewer targets than outputs": (lambda: problem(data=[(X, Y[:5])]), DataError, ["(6, 3)", "(5,)"]),
    "targets that are a mapping": (
        lambda: problem(data=[(X, {"a": Y})]),
        DataError,
        ["cross_entropy: found targets of type dict", "expected a tensor"],
    ),
    "outputs that are a tuple": (
        lambda: problem(nn.Sequential(nn.Linear(3, 3), Lambda(lambda x: (x, x)))),
        DataError,
        ["found outputs of type tuple", "expected a tensor"],
    ),
    "every target ignored": (
        lambda: problem(data=[(X, torch.full((6,), -100))]),
        DataError,
        ["6 examples", "total weight of 0", "every target is ignored"],
    ),
    "every class without weight": (
        lambda: problem(loss=CrossEntropy(weight=(0.0, 0.0, 0.0))),
        DataError,
        ["total weight of 0", "class weight 0"],
    ),
    "class weights of another length": (
        lambda: problem(loss=CrossEntropy(weight=(1.0, 2.0))),
        DataError,
        ["found 2 class weights", "3 classes"],
    ),
    "class weights of another length, for probabilities": (
        lambda: problem(loss=CrossEntropy(weight=(1.0, 2.0)), data=[(X, X.softmax(1))]),
        DataError,
        ["found 2 class weights", "3 classes"],
    ),
    "mse that would broadcast": (
        lambda: problem(mlp(3, 1), "mse", [(X, torch.randn(6, 6))]),
        DataError,
        ["mse: found outputs (6, 1) and targets (6, 6)", "expected the same shape"],
    ),
    "mse of a row": (lambda: problem(mlp(3, 6), "mse", [(X, torch.randn(6))]), DataError, ["(6, 6)", "(6,)"]),
    "bce of classes": (
        lambda: problem(mlp(3, 1), "bce_with_logits", [(X, Y)]),
        DataError,
        ["found targets from 0 to 2", "expected them within [0, 1]"],
    ),
    "bce with weights for the batch": (
        lambda: problem(
            nn.Sequential(mlp(3, 1), Lambda(lambda x: x[:, 0])),
            BCEWithLogits(pos_weight=(1.0,) * 6),
            [(X, Y > 0)],
        ),
        DataError,
        ["found 6 pos_weight", "expected one for each of the 1 outputs"],
    ),
    "causal_lm of sentences": (
        lambda: problem(loss="causal_lm"),
        DataError,
        ["causal_lm: found outputs (6, 3)", "expected (batch, time, vocabulary)"],
    ),
    "causal_lm with a token too big": (
        lambda: problem(mlp(3, 4), "causal_lm", [(torch.randn(2, 5, 3), torch.full((2, 5), 4))]),
        DataError,
        ["found targets from 4 to 4", "from 0 to 3"],
    ),
    # losses
    "unknown loss": (lambda: problem(loss="hinge"), UsageError, ["'hinge'", "expected one of", "cross_entropy"]),
    "no loss": (lambda: problem(loss=3), UsageError, ["found a int", "expected a name or a function"]),
    "a torch loss that is no mean": (
        lambda: problem(loss=nn.CrossEntropyLoss(reduction="sum")),
        UsageError,
        ["reduction 'sum'", "expected reduction 'mean'"],
    ),
    "a loss that returns text": (lambda: problem(loss=own_loss("x")), DataError, ["returned a str", "expected"]),
    "a loss that returns a number": (lambda: problem(loss=own_loss(0.3)), DataError, ["returned a float", "scalar"]),
    "a loss that returns nothing": (lambda: problem(loss=own_loss(None)), DataError, ["returned a NoneType"]),
    "a loss that returns a pair of numbers": (
        lambda: problem(loss=own_loss((1.0, 2))),
        DataError,
        ["sum is 1.0", "expected a tensor"],
    ),
    "a loss that returns sums for each example": (
        lambda: problem(loss=lambda outputs, targets: (outputs.sum(1), 6)),
        DataError,
        ["expected a tensor with one element"],
    ),
    "a loss that returns logits as its count": (
        lambda: problem(loss=lambda outputs, targets: (outputs.sum(), outputs)),
        DataError,
        ["count has shape (6, 3)", "expected a number"],
    ),
    "a model without a loss": (
        lambda: problem(Lambda2(), "model"),
        DataError,
        ["'model'", "returned a Tensor", "expected (sum, count) or an output with .loss"],
    ),
    "a causal language model's own loss": (
        lambda: problem(Shifting(), "model"),
        DataError,
        ["shifts its labels inside", "use loss 'causal_lm'"],
    ),
    "a loss that fails": (
        lambda: problem(loss=lambda outputs, targets: outputs @ outputs),
        MeasurementError,
        ["model or the loss failed on batch 0", "(6, 3) float32", "mat1 and mat2"],
    ),
    # weights
    "NaN weights": (lambda: problem(spoiled(torch.nan)), MeasurementError, ["1 of the model's 4", "first: 0.weight"]),
    "infinite weights": (
        lambda: problem(spoiled(-torch.inf, "2.bias")),
        MeasurementError,
        ["NaN or infinite", "2.bias", "take an earlier one"],
    ),
    "NaN statistics": (lambda: problem(with_bad_statistics()), MeasurementError, ["1.running_mean"]),
    "float16": (lambda: problem(mlp(3, 3).half()), MeasurementError, ["float16", "measure in float32", "bfloat16"]),
    "two dtypes": (
        lambda: problem(half_and_half()),
        MeasurementError,
        ["several dtypes (float32, float64)", "expected one"],
    ),
    "two parameters over one memory": (
        lambda: problem(two_over_one_memory()),
        MeasurementError,
        ["0.weight and 1.weight", "share one memory", "one nn.Parameter"],
    ),
    # selection
    "a pattern that matches nothing": (
        lambda: problem(include=["fc*"]),
        MeasurementError,
        ["'fc*' matches none of the model's 4 parameters", "0.weight", "correct it"],
    ),
    "an exclusion that matches nothing": (
        lambda: problem(exclude=["*.weigth"]),
        MeasurementError,
        ["'*.weigth' matches none"],
    ),
    "nothing selected": (
        lambda: problem(include=["0.*"], exclude=["*"]),
        MeasurementError,
        ["select nothing", "taken away by exclude"],
    ),
    "only frozen": (lambda: problem(frozen()), MeasurementError, ["4 that match are frozen", "unfreeze"]),
    "no parameters": (lambda: problem(nn.Tanh()), MeasurementError, ["the model has none"]),
    # forward
    "inputs of another width": (
        lambda: problem(data=[(torch.randn(6, 5), Y)]),
        MeasurementError,
        ["failed on batch 0", "tensor (6, 5) float32", "mat1 and mat2"],
    ),
    "inputs of another kind": (
        lambda: problem(data=[(X.to(torch.int64), Y)]),
        MeasurementError,
        ["failed on batch 0", "(6, 3) int64"],
    ),
    "NaN inputs": (
        lambda: problem(data=[(X[:3], Y[:3]), (X[3:] * torch.nan, Y[3:])]),
        MeasurementError,
        ["the loss is nan on batch 1", "expected a finite number", "data of that batch"],
    ),
    "infinite loss": (
        lambda: problem(mlp(3, 1), "mse", [(X, torch.full((6,), 1e30))]),
        MeasurementError,
        ["the loss is inf on batch 0"],
    ),
    "inputs changed in place": (
        lambda: problem(in_place().double(), data=[(X.clone(), Y)]),
        MeasurementError,
        ["changes its inputs in place", "batch 0", "x.clone()"],
    ),
    "out of memory on a GPU": (
        lambda: problem(Raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))),
        MeasurementError,
        ["out of memory", "20 GiB", "lower data.batch_size", "select fewer parameters"],
    ),
    "out of memory on a CPU": (
        lambda: problem(Raises(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"))),
        MeasurementError,
        ["out of memory", "DefaultCPUAllocator", "lower data.batch_size"],
    ),
    "out of memory in Python": (
        lambda: problem(Raises(MemoryError())),
        MeasurementError,
        ["out of memory (MemoryError)", "lower data.batch_size"],
    ),
    "out of memory while reading": (
        lambda: problem(data=FailsMidway(MemoryError())),
        MeasurementError,
        ["out of memory", "lower data.batch_size"],
    ),
}


class Lambda2(nn.Module):
    """Takes labels, and returns no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 3)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.body(x)


class CausalLMOutput(SimpleNamespace):
    """As transformers names it."""


class Shifting(OwnLoss):
    def __init__(self) -> None:
        super().__init__("object")

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return CausalLMOutput(loss=super().forward(x, labels).loss)


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str) -> None:
    attempt, kind, words = CASES[name]
    with pytest.raises(HessdiagError) as refusal:
        attempt()
    message = str(refusal.value)
    assert type(refusal.value) is kind, message
    assert refusal.value.exit_code == (2 if kind is UsageError else 3)
    for word in words:
        assert word in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
    ],
)
def test_out_of_memory_later_is_explained_too(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp(3, 4, 3)
    measured = problem(model)
    H = HessianOperator(measured)

    def full(*args: Any, **kwargs: Any) -> Tensor:
        raise error

    monkeypatch.setattr(model[2], "forward", full)
    v = torch.ones(measured.n)
    for measure in (
        measured.gradient,
        lambda: H.matvec(v),
        lambda: H.quadratic_forms(lambda probe, batch: v, [0]),
        lambda: HessianOperator(measured),
        lambda: problem(model),
    ):
        with pytest.raises(MeasurementError, match=r"^out of memory .*lower data\.batch_size"):
            measure()


def test_inputs_changed_in_place_by_a_model_of_another_dtype_are_refused_too() -> None:
    """The cast makes copies, so that two readings agree, and the copy that is kept would be changed again."""
    kept = X.clone()
    with pytest.raises(MeasurementError, match="in place"):
        problem(in_place().double(), data=[(kept, Y)])
    assert torch.equal(kept, X)


def test_a_check_costs_no_gradient_and_no_product() -> None:
    read = problem().meter.read()
    assert (read.gradient, read.hvp) == (0, 0)


def test_a_mean_over_examples_from_a_function() -> None:
    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    model = mlp(3, 3)
    found = problem(model, lambda outputs, targets: F.cross_entropy(outputs, targets), batches).loss_value
    assert found == pytest.approx(float(F.cross_entropy(model(X), Y).detach()), rel=1e-6)
