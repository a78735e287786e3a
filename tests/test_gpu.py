"""The estimators and the fixtures on a GPU beside the CPU's float64 numbers, from probes drawn once, on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import hessdiag
from hessdiag.curvature import DenseOperator, HessianOperator, SymmetricOperator
from hessdiag.errors import HessdiagError
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.spec.schema import AuditSpec, GapSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

DEVICE = "cuda"
FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = ("digits", "cnn", "gpt")


def drawn(H: SymmetricOperator, distribution: str = "rademacher") -> Probes:
    return Probes(H.n, seed=1, stream=Stream.TRACE, distribution=distribution, device="cpu", dtype=H.dtype)


def fixture_problem(name: str, device: str, dtype: str) -> hessdiag.Problem:
    # The values do not depend on the device, and the smallest float64 run is still 100 examples in 4 batches.
    overrides = ["data.max_examples=100", "data.batch_size=30"]
    return hessdiag.load(FIXTURES / name / "audit.yaml", overrides=overrides, device=device, dtype=dtype)


def products(problem: hessdiag.Problem, V: Tensor) -> Tensor:
    H = HessianOperator(problem)
    return H.matmat(V.to(problem.device, H.dtype)).cpu().double()


@pytest.fixture(scope="module")
def exact() -> dict[str, hessdiag.Problem]:
    return {name: fixture_problem(name, "cpu", "float64") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_products_and_loss_of_the_fixtures(
    exact: dict[str, hessdiag.Problem], name: str, dtype: str, tolerance: float
) -> None:
    truth, problem = exact[name], fixture_problem(name, DEVICE, dtype)
    V = torch.stack([drawn(HessianOperator(truth))(k) for k in range(3)], 1)
    V = V / torch.linalg.vector_norm(V, dim=0)
    largest = hessdiag.eigenvalues(HessianOperator(truth), top=1, bottom=1)
    scale = max(abs(largest.largest[0].value), abs(largest.smallest[0].value))

    assert problem.device.type == DEVICE
    assert problem.loss_value == pytest.approx(truth.loss_value, rel=tolerance)
    assert float((products(problem, V) - products(truth, V)).norm(dim=0).max()) <= tolerance * scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_estimators_on_the_fixtures(
    exact: dict[str, hessdiag.Problem], name: str, dtype: str, tolerance: float
) -> None:
    truth, problem = exact[name], fixture_problem(name, DEVICE, dtype)
    H0, H = HessianOperator(truth), HessianOperator(problem)
    # Residuals square in an eigenvalue's error: 1e-6 of the scale leaves 1e-12.
    rtol = 1e-6 if dtype == "float64" else 1e-4
    found0, found = (hessdiag.eigenvalues(operator, top=1, bottom=0, rtol=rtol) for operator in (H0, H))
    scale = abs(found0.largest[0].value)
    for expected, pair in zip(found0.largest, found.largest, strict=True):
        assert abs(pair.value - expected.value) <= tolerance * scale

    trace0, trace = (hessdiag.trace(op, max_matvecs=8, rtol=1e-9, probes=drawn(op)) for op in (H0, H))
    assert abs(trace.value - trace0.value) <= tolerance * scale * H.n
    if dtype == "float64":
        assert trace.value == pytest.approx(trace0.value, rel=1e-10)

    gaps0, gaps = (
        hessdiag.noise_gap(p, sigmas=[0.01, 0.02], draws=4, trace=t, probes=drawn(op, "gaussian"))
        for p, t, op in ((truth, trace0, H0), (problem, trace, H))
    )
    for expected_row, row in zip(gaps0.rows, gaps.rows, strict=True):
        assert row.gap == pytest.approx(expected_row.gap, rel=1e-8 if dtype == "float64" else 2e-3)


def test_estimators_on_a_dense_operator() -> None:
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64, generator=generator))[0]
    values = torch.cat([torch.linspace(-1, 1, 295, dtype=torch.float64), torch.tensor([5.0, 7, 11, 19, 40])])
    matrix = Q * values @ Q.T
    on_cpu, on_gpu = DenseOperator(matrix), DenseOperator(matrix.to(DEVICE))

    for method in ("lanczos", "power"):
        found = hessdiag.eigenvalues(on_gpu, top=4, bottom=0, method=method, rtol=1e-7, max_matvecs=2000)
        expected = values.sort(descending=True).values[:4]
        assert [pair.value for pair in found.largest] == pytest.approx(expected.tolist(), rel=1e-10)
    traces = [hessdiag.trace(op, max_matvecs=16, probes=drawn(op)) for op in (on_cpu, on_gpu)]
    assert traces[1].value == pytest.approx(traces[0].value, rel=1e-10)
    densities = [
        hessdiag.spectral_density(op, steps=8, probes=2, starts=drawn(op, "gaussian")) for op in (on_cpu, on_gpu)
    ]
    assert densities[1].nodes == pytest.approx(densities[0].nodes, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_measured_or_refused_with_the_reason(exact: dict[str, hessdiag.Problem], name: str) -> None:
    problem = fixture_problem(name, DEVICE, "bfloat16")
    try:
        H = HessianOperator(problem)
    except HessdiagError:
        with pytest.raises(HessdiagError, match=r"\w+ \w+"):
            HessianOperator(problem)
        return
    found = hessdiag.eigenvalues(H, top=1, bottom=0, rtol=0.05)
    expected = hessdiag.eigenvalues(HessianOperator(exact[name]), top=1, bottom=0)
    assert found.largest[0].value == pytest.approx(expected.largest[0].value, rel=0.3)


def test_the_whole_audit_and_probes_drawn_on_the_device() -> None:
    plan = AuditSpec(gap=GapSpec(sigma=(0.01,), draws=10))
    problem = fixture_problem("digits", DEVICE, "float32")
    first, second = hessdiag.audit(problem, plan), hessdiag.audit(problem, plan)
    on_cpu = hessdiag.audit(fixture_problem("digits", "cpu", "float64"), plan)

    assert first.target.device.startswith(DEVICE)
    assert first.trace is not None
    assert on_cpu.trace is not None
    assert second.trace is not None
    assert first.trace.value == pytest.approx(second.trace.value, rel=1e-5)
    spread = (first.trace.stderr**2 + on_cpu.trace.stderr**2) ** 0.5
    assert abs(first.trace.value - on_cpu.trace.value) <= 4 * spread
