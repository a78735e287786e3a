"""Which engine is taken, what each refuses, and what it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles.models import Lambda, SelfAttention, SequenceClassifier, mlp
from oracles.problems import ORACLES, reference
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hessdiag import HessianOperator, Problem
from hessdiag.curvature import DenseOperator, dense_hessian
from hessdiag.errors import MeasurementError, UsageError

D = torch.float64


class TanhOnce(torch.autograd.Function):
    """tanh with a gradient but no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (1 - y**2)


class LeakyOnce(torch.autograd.Function):
    """A rectifier with a gradient but no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


class HalfDetachedProduct(torch.autograd.Function):
    """y = s x; the gradient is right, but the dependence of grad s on x is lost: H is not symmetric."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
        ctx.x = x.detach()
        ctx.save_for_backward(s)
        return x * s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (s,) = ctx.saved_tensors
        return grad * s, (grad * ctx.x).sum(0)


class DetachedProduct(torch.autograd.Function):
    """y = s x; both dependences are lost: H is symmetric, and wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
        ctx.x, ctx.s = x.detach(), s.detach()
        return x * s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad * ctx.s, (grad * ctx.x).sum(0)


class Product(torch.autograd.Function):
    """y = s x, right in every derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, s = ctx.saved_tensors
        return grad * s, (grad * x).sum(0)


class FusedCrossEntropy(torch.autograd.Function):
    """A loss that computes its gradient on the way forward, as fused kernels do."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.gradient = logits.softmax(1) - F.one_hot(targets, logits.shape[1])
        return F.cross_entropy(logits, targets, reduction="none")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[:, None] * ctx.gradient, None


class Scaled(nn.Module):
    def __init__(self, scale: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, 4), nn.Linear(4, 3)
        self.s = nn.Parameter(torch.rand(4) + 0.5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.tanh(self.scale(self.before(x), self.s)))


def data(n: int = 12, width: int = 3, dtype: torch.dtype = D) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, width, generator=generator, dtype=D).to(dtype), torch.randint(3, (n,), generator=generator)
    return list(zip(x.split(5), y.split(5), strict=True))


def activated(function: Callable[[Tensor], Tensor], dtype: torch.dtype = D, hidden: int = 5) -> nn.Module:
    return mlp(3, hidden, 3, act=lambda: Lambda(function)).to(dtype)


def twin(model: nn.Module, other: nn.Module) -> nn.Module:
    other.to(next(model.parameters()).dtype).load_state_dict(model.state_dict())
    return other


def difference(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found.double() - expected) / torch.linalg.vector_norm(expected))


def all_of(H: HessianOperator) -> Tensor:
    return H.matmat(torch.eye(H.n, dtype=H.dtype))


def test_auto_takes_reverse_over_reverse() -> None:
    H = HessianOperator(Problem(activated(torch.tanh), "cross_entropy", data()))
    assert (H.engine_info.name, H.engine_info.relative_error) == ("reverse-over-reverse", None)


@pytest.mark.parametrize(("dtype", "tolerance"), [(D, 1e-7), (torch.float32, 2e-2)])
def test_without_second_derivative_a_smooth_network_gets_finite_differences(
    dtype: torch.dtype, tolerance: float
) -> None:
    model = activated(TanhOnce.apply, dtype)
    truth = dense_hessian(Problem(twin(model, activated(torch.tanh, dtype)), "cross_entropy", data()))
    H = HessianOperator(Problem(model, "cross_entropy", data(dtype=dtype)))
    assert H.engine_info.name == "finite-differences"
    error = difference(all_of(H), truth)
    assert error <= tolerance
    assert error / 30 <= H.engine_info.relative_error <= 30 * error + 1e-8
    with pytest.raises(MeasurementError, match="no dense Hessian"):
        dense_hessian(H.problem)


def test_without_second_derivative_a_rectifier_is_refused_with_every_reason() -> None:
    model = activated(LeakyOnce.apply, torch.float32, hidden=40)
    wide = [(torch.randn(200, 3, generator=torch.Generator().manual_seed(2)), torch.arange(200) % 3)]
    with pytest.raises(MeasurementError) as refusal:
        HessianOperator(Problem(model, "cross_entropy", wide))
    message = str(refusal.value)
    assert "reverse-over-reverse: an operation marked once_differentiable (LeakyOnce)" in message
    assert "forward-over-reverse: " in message
    assert "finite-differences: its error would be" in message
    assert "not smooth" in message
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("dtype", [D, torch.float32])
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (HalfDetachedProduct.apply, "not symmetric"),
        (DetachedProduct.apply, "differ from finite differences.*DetachedProduct"),
    ],
)
def test_a_wrong_second_derivative_is_seen(
    function: Callable[[Tensor, Tensor], Tensor], complaint: str, dtype: torch.dtype
) -> None:
    model = Scaled(function).to(dtype)
    truth = dense_hessian(Problem(twin(model, Scaled(torch.mul)), "cross_entropy", data()))
    problem = Problem(model, "cross_entropy", data())
    with pytest.raises(MeasurementError, match=complaint):
        HessianOperator(problem, engine="reverse-over-reverse")
    H = HessianOperator(problem)
    assert H.engine_info.name == "finite-differences"
    assert difference(all_of(H), truth) <= (1e-7 if dtype is D else 1e-2)


def test_the_dense_hessian_refuses_to_be_symmetrised() -> None:
    problem = Problem(Scaled(HalfDetachedProduct.apply).double(), "cross_entropy", data())
    with pytest.raises(MeasurementError, match="not symmetric"):
        dense_hessian(problem)


def test_a_right_autograd_function_keeps_the_exact_engine() -> None:
    model = Scaled(Product.apply).double()
    truth = dense_hessian(Problem(twin(model, Scaled(torch.mul)), "cross_entropy", data()))
    H = HessianOperator(Problem(model, "cross_entropy", data()))
    assert H.engine_info.name == "reverse-over-reverse"
    assert difference(all_of(H), truth) <= 1e-12


def test_a_fused_loss_without_its_own_curvature_is_seen() -> None:
    """Without the loss's curvature the products are symmetric: they are those of R = H - G."""
    model = activated(torch.tanh)
    truth = dense_hessian(Problem(model, "cross_entropy", data()))
    H = HessianOperator(Problem(model, FusedCrossEntropy.apply, data()))
    assert H.engine_info.name == "finite-differences"
    assert difference(all_of(H), truth) <= 1e-7


def test_the_first_layer_alone_below_an_operation_without_second_derivative() -> None:
    """torch.autograd.grad gives zeros here, and no error."""
    model = activated(TanhOnce.apply)
    truth = dense_hessian(Problem(twin(model, activated(torch.tanh)), "cross_entropy", data(), include=["0.*"]))
    H = HessianOperator(Problem(model, "cross_entropy", data(), include=["0.*"]))
    assert H.engine_info.name == "finite-differences"
    assert difference(all_of(H), truth) <= 1e-7


class WrittenOutWeightNorm(nn.Module):
    """What weight_norm computes, under the same names."""

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return g * v / torch.linalg.vector_norm(v, dim=1, keepdim=True)


def test_torchs_weight_norm_has_a_wrong_second_derivative() -> None:
    """On CPU, torch 2.13: the rest of this test says that we do not pass it on."""
    wn = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(wn(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 3)).double()
    written_out = nn.Sequential(wn(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 3)).double()
    written_out[0].parametrizations.weight[0].forward = WrittenOutWeightNorm().forward
    problem = Problem(model, "cross_entropy", data())
    truth = dense_hessian(Problem(twin(model, written_out), "cross_entropy", data()))
    assert difference(all_of(HessianOperator(problem)), truth) <= 1e-7


def test_embedding_bag_has_no_second_derivative_but_finite_differences() -> None:
    class Bag(nn.Module):
        def __init__(self, explicit: bool) -> None:
            super().__init__()
            self.bag, self.head, self.explicit = nn.EmbeddingBag(7, 4), nn.Linear(4, 3), explicit

        def forward(self, tokens: Tensor) -> Tensor:
            mean = self.bag.weight[tokens].mean(1) if self.explicit else self.bag(tokens)
            return self.head(torch.tanh(mean))

    batches = [(torch.randint(7, (6, 3)), torch.arange(6) % 3) for _ in range(2)]
    model = Bag(explicit=False).double()
    truth = dense_hessian(Problem(twin(model, Bag(explicit=True)), "cross_entropy", batches))
    H = HessianOperator(Problem(model, "cross_entropy", batches))
    assert H.engine_info.name == "finite-differences"
    assert difference(all_of(H), truth) <= 1e-7


def test_forward_over_reverse_sees_a_stashed_weight() -> None:
    problem = ORACLES["weight_stashed_in_a_list"].case().problem()
    with pytest.raises(MeasurementError, match="keeps weights where they cannot be replaced"):
        HessianOperator(problem, engine="forward-over-reverse")


def test_unknown_engine_and_bad_chunk() -> None:
    problem = ORACLES["quadratic"].case().problem()
    with pytest.raises(UsageError, match="reverse-over-reverse"):
        HessianOperator(problem, engine="backwards")
    with pytest.raises(UsageError, match="chunk"):
        HessianOperator(problem, chunk=0)


def test_vectors_of_another_shape_are_refused() -> None:
    H = HessianOperator(ORACLES["quadratic"].case().problem())
    for wrong in (torch.zeros(4), torch.zeros(6), torch.zeros(5, 1)):
        with pytest.raises(UsageError, match=r"expected \(5"):
            H.matvec(wrong)
    for wrong in (torch.zeros(5), torch.zeros(2, 5)):
        with pytest.raises(UsageError, match=r"expected \(5, k\)"):
            H.matmat(wrong)


def test_a_loss_cut_off_from_the_weights_is_refused_not_zero() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Lambda(Tensor.detach)).double()
    problem = Problem(model, "cross_entropy", data())
    for measure in (problem.gradient, lambda: HessianOperator(problem)):
        with pytest.raises(MeasurementError, match="does not depend on any of the 2 selected"):
            measure()


def test_layer_norm_under_transforms() -> None:
    """Why some references are differentiated row by row: torch.func.hessian is wrong here (torch 2.13)."""
    norm = nn.LayerNorm(3).double()
    x = torch.randn(4, 2, 3, dtype=D)

    def f(weight: Tensor) -> Tensor:
        return (torch.func.functional_call(norm, {"weight": weight}, (x,)) ** 4).sum()

    problem = Problem(norm, lambda outputs, _: (outputs**4).sum((1, 2)), [(x, x)], include=["weight"])
    ours = dense_hessian(problem) * 4
    normed = F.layer_norm(x, (3,))
    truth = torch.diag((12 * normed**4).sum((0, 1)) * norm.weight.detach() ** 2)
    assert difference(ours, truth) <= 1e-12
    assert difference(all_of(HessianOperator(problem, engine="forward-over-reverse")) * 4, truth) <= 1e-12


ATTENTION = {
    "sdpa": lambda: SelfAttention(4),
    "encoder layer": lambda: nn.TransformerEncoderLayer(4, 2, 3, activation="gelu", batch_first=True).eval(),
}


@pytest.mark.parametrize("body", ATTENTION)
@pytest.mark.parametrize("training", [True, False])
def test_attention_works_with_whatever_kernel_it_would_take(body: str, training: bool) -> None:
    model = SequenceClassifier(ATTENTION[body](), 4).train(training)
    batches = [(torch.randn(3, 5, 4), torch.arange(3))]
    H = HessianOperator(Problem(model, "cross_entropy", batches))
    assert H.engine_info.name == "reverse-over-reverse"
    truth = dense_hessian(H.problem)
    assert difference(all_of(H), truth) <= 1e-4


def test_the_loss_and_its_derivatives_come_from_the_same_kernels() -> None:
    """Without gradients nn.TransformerEncoderLayer would take a fused path, and another loss by rounding."""
    model = SequenceClassifier(ATTENTION["encoder layer"](), 4).eval()
    problem = Problem(model, "cross_entropy", [(torch.randn(50, 5, 4), torch.arange(50) % 3)])
    with problem.measuring():
        (batch,) = problem.batches()
        total, count = problem.batch_totals(batch)
    assert total.requires_grad
    assert problem.loss_value == float(total.detach()) / float(count)


CONTEXTS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "set_default_dtype": contextlib.nullcontext,
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_the_callers_context_changes_nothing(context: str, dtype: torch.dtype) -> None:
    case = ORACLES["gelu"].case().converted(dtype)
    v = torch.randn(len(reference("gelu").gradient), dtype=dtype)

    def measured() -> list[Tensor]:
        problem = case.problem()
        draws = HessianOperator(problem).quadratic_forms(lambda probe, batch: v, [0, 1])
        return [torch.tensor(problem.loss_value), problem.gradient(), HessianOperator(problem).matvec(v), draws]

    plain = measured()
    with CONTEXTS[context]():
        changed = measured()
    assert all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))
    problem = case.problem()
    H = HessianOperator(problem)
    with CONTEXTS[context]():
        assert torch.equal(H.matvec(v.clone()), plain[2])
        assert torch.equal(problem.gradient(), plain[1])


@pytest.mark.parametrize("where", ["whole", "part", "in place"])
def test_a_compiled_model_gives_the_same_numbers_under_its_own_names(where: str) -> None:
    case = ORACLES["gelu"].case()
    plain = case.problem()
    third = case.model[2].weight.numel() + case.model[2].bias.numel()
    v = torch.randn(plain.n, dtype=D)
    expected = HessianOperator(plain).matvec(v)
    if where == "whole":
        case.model = torch.compile(case.model, backend="eager")
    elif where == "part":
        case.model[2] = torch.compile(case.model[2], backend="eager")
    else:
        case.model.compile(backend="eager")
    problem = case.problem()
    assert [group.name for group in problem.groups] == [group.name for group in plain.groups]
    assert problem.loss_value == plain.loss_value
    assert torch.equal(HessianOperator(problem).matvec(v), expected)
    assert difference(HessianOperator(problem, engine="forward-over-reverse").matvec(v), expected) <= 1e-12
    assert torch.equal(problem.gradient(), plain.gradient())
    assert case.problem(include=("2.*",)).n == third


def test_a_model_compiled_by_the_default_backend_and_used_before() -> None:
    case = ORACLES["gelu"].case()
    expected = HessianOperator(case.problem()).matvec(torch.ones(77, dtype=D))
    case.model = torch.compile(case.model, backend="aot_eager")
    case.model(case.data[0]).sum().backward()
    assert torch.equal(HessianOperator(case.problem()).matvec(torch.ones(77, dtype=D)), expected)


def test_costs_are_counted_in_passes_over_the_whole_data() -> None:
    problem = ORACLES["gelu"].case().problem([4, 4, 3])

    def cost() -> tuple[float, float, float]:
        read = problem.meter.read()
        return read.forward, read.gradient, read.hvp

    assert cost() == (2, 0, 0)
    H = HessianOperator(problem)
    trial = cost()[2]
    assert trial == pytest.approx(2 / 3)  # two products on one batch of three
    assert cost()[:2] == (2, 0)
    problem.gradient()
    assert cost() == (2, 1, pytest.approx(trial))
    v = torch.ones(problem.n, dtype=D)
    for measure, products in [
        (lambda: H.matvec(v), 1),
        (lambda: H.matmat(torch.ones(problem.n, 5, dtype=D)), 5),
        (lambda: H.quadratic_forms(lambda probe, batch: v, [0, 1, 2, 3]), 4),
        (lambda: H.quadratic_forms(lambda probe, batch: v, [0, 1], per_batch=False), 2),
        (lambda: dense_hessian(problem), problem.n),
    ]:
        before = cost()[2]
        measure()
        assert cost()[2] - before == pytest.approx(products)
    assert cost()[:2] == (2, 1)


def test_whole_passes_are_counted_exactly() -> None:
    problem = ORACLES["gelu"].case().problem([1] * 11)
    H = HessianOperator(problem)
    before = problem.meter.read()
    for _ in range(30):
        H.matvec(torch.ones(problem.n, dtype=D))
    assert (problem.meter.read() - before).hvp == pytest.approx(30, abs=1e-12)


def symmetric(n: int, seed: int) -> Tensor:
    matrix = torch.randn(n, n, dtype=D, generator=torch.Generator().manual_seed(seed))
    return matrix + matrix.T


def test_dense_operator() -> None:
    parts = [symmetric(6, seed) for seed in range(3)]
    H, whole = DenseOperator(parts), sum(parts)
    V = torch.randn(6, 4, dtype=D)
    torch.testing.assert_close(H.matmat(V), whole @ V, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(H.matvec(V[:, 1]), whole @ V[:, 1], rtol=1e-13, atol=1e-13)
    assert H.meter.read().hvp == 5
    forms = H.quadratic_forms(lambda probe, batch: V[:, 0] if batch is None else V[:, batch], [0, 1])
    expected = sum(V[:, b] @ part @ V[:, b] for b, part in enumerate(parts))
    torch.testing.assert_close(forms, expected.expand(2, 1), rtol=1e-12, atol=1e-12)
    shared = H.quadratic_forms(lambda probe, batch: V[:, 0] if batch is None else V[:, batch], [0], per_batch=False)
    torch.testing.assert_close(shared, (V[:, 0] @ whole @ V[:, 0]).reshape(1, 1), rtol=1e-12, atol=1e-12)
    assert H.meter.read().hvp == 8
    with pytest.raises(UsageError, match="expected a square one"):
        DenseOperator(torch.zeros(2, 3))
