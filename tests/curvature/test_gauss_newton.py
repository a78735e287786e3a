"""H = G + R on every oracle problem, against G from Jacobians and the second derivatives of the losses."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from oracles.problems import ORACLES, reference
from scipy import stats
from torch import Tensor, nn

from hessdiag import HessianOperator, Problem
from hessdiag.curvature.engines import ReverseOverReverse
from hessdiag.curvature.gauss_newton import GaussNewton, TraceSamples
from hessdiag.curvature.operator import Split
from hessdiag.curvature.requests import GaussNewtonSums, OutputDraws, QuadraticForms, ResidualDiagonal, Served
from hessdiag.errors import MeasurementError
from hessdiag.losses import convex_form

CONVEX = [name for name in sorted(ORACLES) if convex_form(ORACLES[name].case().problem().loss) is not None]
OTHERS = [name for name in sorted(ORACLES) if name not in CONVEX]
FORWARD = [name for name in CONVEX if ORACLES[name].forward_mode][::8]


def jacobian(problem: Problem, outputs: Tensor) -> Tensor:
    """(output elements, n), row by row."""
    parameters = list(problem.parameters.values())
    rows = [torch.autograd.grad(z, parameters, retain_graph=True, allow_unused=True) for z in outputs.flatten()]
    return torch.stack([problem.flatten(row) for row in rows])


@functools.cache
def operator(name: str) -> HessianOperator:
    return HessianOperator(ORACLES[name].case().problem())


def vectors(n: int) -> Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@functools.cache
def served(name: str) -> dict[str, Served]:
    """Everything of one problem, in one pass."""
    H = operator(name)
    V, available = vectors(H.n), H.split.available
    assert available
    requests = {
        "exact": OutputDraws(0, (), exact=True),
        "draws": OutputDraws(0, range(8)),
        "residual": QuadraticForms(lambda probe, batch: V[:, probe], range(3), per_batch=False, part="residual"),
        "diagonal": ResidualDiagonal(0),
    }
    return dict(zip(requests, H.serve(list(requests.values())), strict=True))


@functools.cache
def gauss_newton(name: str) -> Tensor:
    """G = (1/W) sum over batches J^T (d^2 total / dz^2) J, (n, n)."""
    problem = operator(name).problem
    loss = convex_form(problem.loss)
    assert loss is not None
    G = torch.zeros(problem.n, problem.n, dtype=torch.float64)
    with problem.measuring():
        for batch in problem.batches():
            outputs = problem.outputs(batch)

            def total(z: Tensor, batch=batch) -> Tensor:
                return loss(z, batch.targets, batch.rows)[0]

            A = torch.autograd.functional.hessian(total, outputs.detach()).reshape(outputs.numel(), -1)
            J = jacobian(problem, outputs)
            G += J.T @ A @ J
    return G / problem.weight


def by_group(problem: Problem, diagonal: Tensor) -> Tensor:
    return torch.stack([part.sum() for part in torch.split(diagonal, [group.size for group in problem.groups])])


def samples(H: HessianOperator, draws: range, seed: int = 0) -> GaussNewtonSums:
    return H.serve([OutputDraws(seed, draws)])[0].answer


def exact(H: HessianOperator) -> Tensor:
    sums: Tensor = H.serve([OutputDraws(0, (), exact=True)])[0].answer.sums
    return sums[0]


@pytest.mark.parametrize("name", CONVEX)
def test_the_exact_trace_by_group(name: str) -> None:
    found = served(name)["exact"].answer
    expected = by_group(operator(name).problem, gauss_newton(name).diagonal())
    assert torch.allclose(found.sums[0], expected, rtol=0, atol=1e-12 * float(expected.sum()))
    assert found.sums.shape == (1, len(expected))
    assert not found.variance.any()
    assert found.degrees == math.inf


@pytest.mark.parametrize("name", CONVEX)
def test_the_mean_over_draws_and_what_they_cost(name: str) -> None:
    draws = served(name)["draws"]
    expected = by_group(operator(name).problem, gauss_newton(name).diagonal())
    found, stderr = draws.answer.sums, draws.answer.variance.sqrt()
    assert found.shape == (8, len(expected))
    floor = 1e-12 * expected.sum()
    assert bool(((found.mean(0) - expected).abs() <= 4 * stderr[:-1] + floor).all())
    assert abs(found.sum(1).mean() - expected.sum()) <= 4 * stderr[-1] + floor
    assert (draws.cost.forward, draws.cost.gradient, draws.cost.hvp) == (0, 8, 0)


@pytest.mark.parametrize("name", CONVEX)
def test_the_residual_part_is_what_is_left(name: str) -> None:
    """H v = R v + G v, by quadratic forms of each group."""
    problem, H = operator(name).problem, reference(name).hessian
    found = served(name)["residual"].answer
    expected = torch.stack([by_group(problem, v * ((H - gauss_newton(name)) @ v)) for v in vectors(problem.n).T])
    scale = float(torch.linalg.matrix_norm(H)) * problem.n
    assert torch.allclose(found.sums, expected, rtol=0, atol=1e-12 * scale)
    assert torch.allclose(found.batch_totals.sum(1), expected.sum(1), rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", CONVEX)
def test_whether_the_residual_part_has_a_diagonal(name: str) -> None:
    sizes = [group.size for group in operator(name).groups]
    R = reference(name).hessian - gauss_newton(name)
    blocks = [row.split(sizes, 1)[g] for g, row in enumerate(R.split(sizes, 0))]
    scale = float(torch.linalg.matrix_norm(reference(name).hessian))
    curved = [g for g, block in enumerate(blocks) if float(torch.linalg.matrix_norm(block)) > 1e-10 * scale]
    found = served(name)["diagonal"].answer
    assert found in curved if curved else found is None


@pytest.mark.parametrize("name", FORWARD)
def test_the_residual_part_by_forward_mode(name: str) -> None:
    def forms(engine: str) -> Tensor:
        problem = ORACLES[name].case().problem()
        V = torch.randn(problem.n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        request = QuadraticForms(lambda probe, batch: V[:, probe], range(2), per_batch=False, part="residual")
        return HessianOperator(problem, engine=engine).serve([request])[0].answer.sums

    expected = forms("reverse-over-reverse")
    assert torch.allclose(forms("forward-over-reverse"), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_other_losses_have_no_split_and_say_so(name: str) -> None:
    H = HessianOperator(ORACLES[name].case().problem())
    assert H.split == Split(False, "the loss is not known to be convex in the outputs")
    with pytest.raises(MeasurementError, match="not known to be convex"):
        samples(H, range(2))


def test_finite_differences_have_no_split() -> None:
    H = HessianOperator(ORACLES["gelu"].case().problem(), engine="finite-differences")
    assert "finite differences" in H.split.reason


class Normalised(nn.Module):
    """Log-probabilities; the normaliser with or without its graph."""

    def __init__(self, *, detached: bool) -> None:
        super().__init__()
        self.linear, self.detached = nn.Linear(3, 4).double(), detached

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        total = z.logsumexp(1, keepdim=True)
        return z - (total.detach() if self.detached else total)


@pytest.mark.parametrize("detached", [False, True])
def test_nll_with_a_normaliser_apart_from_the_weights_has_no_split(detached: bool) -> None:
    torch.manual_seed(0)
    data = [(torch.randn(5, 3, dtype=torch.float64), torch.randint(4, (5,)))]
    split = HessianOperator(Problem(Normalised(detached=detached), "nll", data)).split
    assert split.available is not detached
    assert ("normaliser does not follow" in split.reason) is detached


def test_nll_of_raw_outputs_has_no_split() -> None:
    H = HessianOperator(Problem(nn.Linear(3, 4), "nll", [(torch.randn(5, 3), torch.randint(4, (5,)))]))
    assert "no log-probabilities" in H.split.reason


@pytest.mark.parametrize("name", ["gelu", "causal_lm_with_padding", "mse_images"])
def test_draws_are_keyed_and_add_up(name: str) -> None:
    """The same draws whoever asks, in whichever order; others are others."""
    H = HessianOperator(ORACLES[name].case().problem())
    whole = samples(H, range(6)).sums
    assert torch.equal(samples(HessianOperator(ORACLES[name].case().problem()), range(6)).sums, whole)
    assert torch.equal(torch.cat([samples(H, range(2)).sums, samples(H, range(2, 6)).sums]), whole)
    assert not torch.isclose(samples(H, range(6), seed=1).sums, whole).any()
    assert len(set(whole.sum(1).tolist())) == 6


def test_one_draw_has_no_variance() -> None:
    found = samples(HessianOperator(ORACLES["gelu"].case().problem()), range(1))
    assert bool(found.variance.isinf().all())
    assert found.degrees == 0


@pytest.mark.parametrize("name", ["bce_one_output", "mse_outputs_without_the_last_dimension"])
def test_with_one_direction_any_draw_is_exact(name: str) -> None:
    H = HessianOperator(ORACLES[name].case().problem())
    assert H.split.columns == 1
    found = samples(H, range(2))
    assert torch.allclose(found.sums, exact(H).expand(2, -1), rtol=1e-12)
    assert float(found.variance[-1]) <= 1e-24 * float(found.sums[0].sum()) ** 2


def test_intervals_from_the_reported_variance_cover() -> None:
    """Student's with the reported degrees of freedom: 95 %, within three standard errors of 300 runs."""
    H = HessianOperator(ORACLES["relu"].case().problem([11]))
    truth, covered, runs = float(gauss_newton("relu").trace()), 0, 300
    found = [served.answer for served in H.serve([OutputDraws(seed, range(2)) for seed in range(runs)])]
    for answer in found:
        half = stats.t.ppf(0.975, answer.degrees) * math.sqrt(answer.variance[-1])
        covered += abs(float(answer.sums.sum(1).mean()) - truth) <= half
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs) <= covered / runs
    true = torch.stack([answer.sums.sum(1).mean() for answer in found]).var()
    claimed = torch.stack([answer.variance[-1] for answer in found]).mean()
    assert float(claimed / true) == pytest.approx(1, abs=4 * math.sqrt(2 / runs))


def test_a_sure_network_is_measured_where_its_probabilities_vanish() -> None:
    """p (1 - p) about 1e-30 in float32: directions of the outputs are scaled before they are squared."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 4, bias=False), torch.randn(6, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([70.0, 0.0, 0.0, 0.0])[:, None] * torch.ones(4, 3))
    x = x.abs() + 1
    x = x / x.sum(1, keepdim=True)  # logits (70, 0, 0, 0)
    problem = Problem(model, "cross_entropy", [(x, torch.zeros(6, dtype=torch.int64))])
    found = TraceSamples(GaussNewton(problem, ReverseOverReverse()), OutputDraws(0, (), exact=True))
    with problem.measuring():
        found.take(next(problem.batches()))
    p = torch.softmax(torch.tensor([70.0, 0.0, 0.0, 0.0], dtype=torch.float64), 0)
    expected = float((p * (1 - p)).sum() * x.double().square().sum(1).mean())
    assert float(found.answer().sums.sum()) == pytest.approx(expected, rel=1e-4)
    assert expected < 1e-28


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    name = "gelu"
    H = HessianOperator(ORACLES[name].case().converted(dtype).problem())
    expected = by_group(H.problem, gauss_newton(name).diagonal())
    found = exact(H)
    assert found.dtype is torch.float64
    assert float((found - expected).norm() / expected.norm()) <= (1e-5 if dtype is torch.float32 else 0.05)
