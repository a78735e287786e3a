"""The operator on every oracle problem against the dense Hessian of the loss written a second time."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles.problems import ORACLES, Case, differentiate, reference
from torch import Tensor

from hessdiag import HessianOperator, Problem
from hessdiag.curvature import dense_hessian
from hessdiag.errors import DataError, MeasurementError

EVERY = sorted(ORACLES)
SMOOTH = [name for name in EVERY if ORACLES[name].smooth]


def relative(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """||found - expected|| over ||expected|| (or ``scale``); 0 where both are zero."""
    size = float(torch.linalg.vector_norm(expected if scale is None else scale))
    difference = float(torch.linalg.vector_norm(found.double() - expected))
    return difference / size if size else difference


def vectors(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def splits(case: Case) -> dict[str, Problem]:
    """The same data in other batches, and in other orders."""
    n = case.examples
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(7))
    return {
        "whole": case.problem([n]),
        "one by one": case.problem([1] * n),
        "ragged": case.problem([1, n - 3, 2]),
        "reversed": case.problem(order=torch.arange(n).flip(0)),
        "shuffled": case.problem([2, n - 2], order=shuffled),
    }


def test_there_are_at_least_forty_problems_of_fewer_than_150_parameters() -> None:
    assert len(ORACLES) >= 40
    assert max(len(reference(name).gradient) for name in ORACLES) < 150


@pytest.mark.parametrize("name", EVERY)
def test_loss_gradient_and_products(name: str) -> None:
    problem, truth = ORACLES[name].case().problem(), reference(name)
    H = HessianOperator(problem, engine="reverse-over-reverse")
    V = vectors(problem.n, 3)

    assert H.shape == truth.hessian.shape
    assert problem.loss_value == pytest.approx(truth.loss, rel=1e-12)
    assert relative(problem.gradient(), truth.gradient) <= 1e-10
    assert relative(H.matmat(V), truth.hessian @ V) <= 1e-10
    assert relative(H.matvec(V[:, 0]), truth.hessian @ V[:, 0]) <= 1e-10
    assert sum(group.size for group in problem.groups) == problem.n


@pytest.mark.parametrize("name", EVERY)
def test_auto_takes_the_exact_engine(name: str) -> None:
    assert HessianOperator(ORACLES[name].case().problem()).engine_info.name == "reverse-over-reverse"


@pytest.mark.parametrize("name", EVERY)
def test_no_split_into_batches_and_no_order_changes_anything(name: str) -> None:
    case = ORACLES[name].case()
    problem = case.problem()
    V = vectors(problem.n, 2)
    product, gradient = HessianOperator(problem).matmat(V), problem.gradient()
    weight = problem.weight
    for split, other in splits(case).items():
        assert other.weight == pytest.approx(weight, rel=1e-14), split
        assert other.loss_value == pytest.approx(problem.loss_value, rel=1e-12), split
        assert relative(other.gradient(), gradient, gradient) <= 1e-12, split
        assert relative(HessianOperator(other).matmat(V), product) <= 1e-12, split


@pytest.mark.parametrize("name", EVERY)
def test_dense_hessian(name: str) -> None:
    truth = reference(name).hessian
    assert relative(dense_hessian(ORACLES[name].case().problem()), truth) <= 1e-10


@pytest.mark.parametrize("name", EVERY)
def test_the_reference_itself_is_symmetric(name: str) -> None:
    truth = reference(name).hessian
    assert relative(truth.T, truth) <= 1e-12


def batch_hessians(case: Case) -> list[Tensor]:
    """H_b of each batch with its share of the denominator, so that they add up to H."""
    problem = case.problem()
    shares, matrices = [], []
    for batch in case.batches():
        try:
            alone = Problem(case.model, case.loss, [batch], include=case.include, exclude=case.exclude)
        except DataError:  # every target of this batch is ignored: the sum of shares below shows that it was so
            shares.append(0.0)
            matrices.append(torch.zeros(problem.n, problem.n, dtype=torch.float64))
            continue
        shares.append(alone.weight)
        matrices.append(dense_hessian(alone))
    assert sum(shares) == pytest.approx(problem.weight, rel=1e-13)
    return [share / problem.weight * matrix for share, matrix in zip(shares, matrices, strict=True)]


@pytest.mark.parametrize("name", EVERY)
def test_quadratic_forms_by_batch_and_by_group(name: str) -> None:
    case = ORACLES[name].case()
    problem = case.problem()
    H = HessianOperator(problem)
    drawn = {
        (probe, batch): vectors(problem.n, 1, seed=100 * probe + (99 if batch is None else batch))[:, 0]
        for probe in (3, 5)
        for batch in (None, 0, 1, 2)
    }
    parts = batch_hessians(case)
    sizes = [group.size for group in problem.groups]

    def by_group(v: Tensor, matrix: Tensor) -> Tensor:
        return torch.stack([part.sum() for part in torch.split(v * (matrix @ v), sizes)])

    def draw(probe: int, batch: int | None) -> Tensor:
        return drawn[probe, batch]

    fresh = torch.stack([sum(by_group(drawn[p, b], part) for b, part in enumerate(parts)) for p in (3, 5)])
    shared = torch.stack([by_group(drawn[p, None], sum(parts)) for p in (3, 5)])
    scale = torch.linalg.matrix_norm(sum(parts)) * problem.n
    assert relative(H.quadratic_forms(draw, (3, 5)), fresh, scale) <= 1e-12
    assert relative(H.quadratic_forms(draw, (3, 5), per_batch=False), shared, scale) <= 1e-12


@pytest.mark.parametrize("name", [name for name in EVERY if ORACLES[name].forward_mode])
def test_forward_over_reverse(name: str) -> None:
    problem = ORACLES[name].case().problem()
    V = vectors(problem.n, 2)
    H = HessianOperator(problem, engine="forward-over-reverse")
    assert relative(H.matmat(V), reference(name).hessian @ V) <= 1e-10


@pytest.mark.parametrize("name", [name for name in EVERY if not ORACLES[name].forward_mode])
def test_forward_over_reverse_refuses_what_it_cannot_do(name: str) -> None:
    with pytest.raises(MeasurementError, match="forward-over-reverse: "):
        HessianOperator(ORACLES[name].case().problem(), engine="forward-over-reverse")


@pytest.mark.parametrize("name", SMOOTH)
def test_finite_differences_know_their_error(name: str) -> None:
    problem = ORACLES[name].case().problem()
    H = HessianOperator(problem, engine="finite-differences")
    V = vectors(problem.n, 4)
    scale = torch.linalg.matrix_norm(reference(name).hessian) * torch.linalg.vector_norm(V)
    assert relative(H.matmat(V), reference(name).hessian @ V, scale) <= 1e-6
    error = relative(H.matmat(V), reference(name).hessian @ V)
    assert H.engine_info.relative_error is not None
    # The estimate comes from another vector than these: of the right order is all that it can be.
    assert H.engine_info.relative_error >= error / 30 - 1e-9
    assert H.engine_info.relative_error <= 1e-4


@pytest.mark.parametrize("name", EVERY)
def test_float32_products(name: str) -> None:
    case = ORACLES[name].case()
    truth = reference(name).hessian
    problem = case.converted(torch.float32).problem()
    assert problem.dtype is torch.float32
    V = vectors(problem.n, 3)
    found = HessianOperator(problem).matmat(V.float())
    assert found.dtype is torch.float32
    scale = torch.linalg.matrix_norm(truth) * torch.linalg.vector_norm(V)
    assert relative(found, truth @ V, scale) <= 1e-5
    assert problem.loss_value == pytest.approx(reference(name).loss, rel=1e-5)


def rounded(case: Case) -> Case:
    """The float64 case at the weights and the data that bfloat16 can hold."""
    return case.converted(torch.bfloat16).converted(torch.float64)


@pytest.mark.parametrize("name", [name for name in EVERY if ORACLES[name].bfloat16])
def test_bfloat16_products_in_float32_vectors(name: str) -> None:
    case = ORACLES[name].case()
    truth = differentiate(rounded(case), rows=ORACLES[name].rows)
    problem = case.converted(torch.bfloat16).problem()
    V = vectors(problem.n, 3).bfloat16().double()
    found = HessianOperator(problem).matmat(V.float())
    assert found.dtype is torch.float32
    scale = torch.linalg.matrix_norm(truth.hessian) * torch.linalg.vector_norm(V)
    assert relative(found, truth.hessian @ V, scale) <= 0.05
    assert problem.loss_value == pytest.approx(truth.loss, rel=0.05)


@pytest.mark.parametrize("name", [name for name in EVERY if not ORACLES[name].bfloat16])
def test_bfloat16_is_refused_where_torch_lacks_an_operation(name: str) -> None:
    with pytest.raises(MeasurementError, match="BFloat16"):
        ORACLES[name].case().converted(torch.bfloat16).problem()


def test_float16_is_refused() -> None:
    case = ORACLES["gelu"].case().converted(torch.float16)
    with pytest.raises(MeasurementError, match=r"float16.*bfloat16"):
        case.problem()


@pytest.mark.parametrize("name", ["gelu", "fused_attention", "lstm", "class_weights_smoothing_and_ignored"])
@pytest.mark.parametrize("engine", ["reverse-over-reverse", "finite-differences"])
def test_chunks_change_no_bit(name: str, engine: str) -> None:
    problem = ORACLES[name].case().problem()
    V = vectors(problem.n, 5)
    whole = HessianOperator(problem, engine=engine).matmat(V)
    for chunk in (1, 2, 5, 99):
        assert torch.equal(HessianOperator(problem, engine=engine, chunk=chunk).matmat(V), whole)
    columns = [HessianOperator(problem, engine=engine).matvec(v) for v in V.T]
    assert torch.equal(torch.stack(columns, 1), whole)


@pytest.mark.parametrize("engine", ["reverse-over-reverse", "forward-over-reverse", "finite-differences"])
def test_products_are_linear_whatever_the_length_of_the_vector(engine: str) -> None:
    problem = ORACLES["gelu"].case().problem()
    H = HessianOperator(problem, engine=engine)
    u, v = vectors(problem.n, 2).T
    tolerance = 1e-6 if engine == "finite-differences" else 1e-13
    for factor in (1e-3, 1e3, 1e-30):
        assert relative(H.matvec(factor * v) / factor, H.matvec(v)) <= tolerance
    assert relative(H.matvec(2 * u - 3 * v), 2 * H.matvec(u) - 3 * H.matvec(v)) <= tolerance
    assert torch.equal(H.matvec(torch.zeros_like(v)), torch.zeros_like(v))
    assert float(u @ H.matvec(v)) == pytest.approx(float(v @ H.matvec(u)), rel=10 * tolerance, abs=1e-12)


def test_no_vectors_give_no_products() -> None:
    H = HessianOperator(ORACLES["gelu"].case().problem())
    assert H.matmat(torch.zeros(H.n, 0, dtype=torch.float64)).shape == (H.n, 0)


def test_a_copy_of_the_problem_in_float64_is_another_model() -> None:
    case = ORACLES["gelu"].case().converted(torch.float32)
    problem = case.problem()
    before = copy.deepcopy(case.model.state_dict())
    exact = problem.in_float64()
    assert exact.dtype is torch.float64
    assert exact.model is not case.model
    assert all(torch.equal(case.model.state_dict()[name], before[name]) for name in before)
    assert all(p.dtype is torch.float32 for p in case.model.parameters())
