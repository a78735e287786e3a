"""The Python API as the contract writes it, on a spec and on live objects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

import hessdiag
from hessdiag.curvature.dense import dense_hessian
from hessdiag.errors import SpecError

DIGITS = Path(__file__).parents[1] / "fixtures/digits/audit.yaml"
NAMES = {
    "HessianOperator",
    "Problem",
    "audit",
    "eigenvalues",
    "load",
    "noise_gap",
    "spectral_density",
    "trace",
}


@pytest.fixture(scope="module")
def digits():
    return hessdiag.load(DIGITS, overrides=["data.max_examples=300", "parameters.include=['fc2*']"])


@pytest.fixture(scope="module")
def live():
    return hessdiag.Problem(tiny.network(), "cross_entropy", tiny.batches())


@pytest.fixture(params=["digits", "live"])
def problem(request):
    return request.getfixturevalue(request.param)


def test_the_snippet_of_the_contract(problem):
    H = hessdiag.HessianOperator(problem)
    n = problem.n
    assert H.shape == (n, n)
    v = H.matvec(torch.ones(n))
    V = H.matmat(torch.ones(n, 2))
    assert (v.shape, V.shape) == ((n,), (n, 2))
    assert (v.dtype, v.device) == (problem.dtype, problem.device)
    assert torch.equal(V[:, 0], V[:, 1])

    values = torch.linalg.eigvalsh(dense_hessian(problem))
    found = hessdiag.eigenvalues(H, top=5, bottom=1)
    assert [pair.value for pair in found.largest] == pytest.approx(values.flip(0)[:5].tolist(), rel=1e-2)
    assert found.smallest[0].value == pytest.approx(float(values[0]), abs=1e-3 * float(values[-1]))

    estimate = hessdiag.trace(H, rtol=0.2)
    assert estimate.converged
    assert estimate.interval[0] <= float(values.sum()) <= estimate.interval[1]

    gap = hessdiag.noise_gap(problem, sigmas=[0.02, 0.03], draws=10, trace=estimate)
    assert [row.sigma for row in gap.rows] == [0.02, 0.03]

    density = hessdiag.spectral_density(H)
    mean = sum(weight * node for weight, node in zip(density.weights, density.nodes, strict=True))
    stderr = (2 / density.probes) ** 0.5 * float(values.norm()) / n
    assert sum(density.weights) == pytest.approx(1)
    assert abs(mean - float(values.mean())) < 4 * stderr

    for result in (found, estimate, gap, density):
        assert result.seed == 0
        assert (result.cost.forward, result.cost.gradient, result.cost.hvp) != (0, 0, 0)


def test_noise_gap_measures_the_trace_where_it_is_not_given(live):
    alone = hessdiag.trace(hessdiag.HessianOperator(live))
    gap = hessdiag.noise_gap(live, sigmas=[0.02, 0.03], draws=10)
    assert gap.rows[0].predicted == pytest.approx(0.02**2 / 2 * alone.value)


def test_the_whole_report(monkeypatch):
    data = [(torch.tensor([[0.3, 1.0], [1.1, 0.2]]), torch.tensor([[1.0], [2.0]]))]
    model = torch.nn.Linear(2, 4)
    problem = hessdiag.Problem(model, lambda outputs, targets: (outputs.mean(1) - targets[:, 0]) ** 2, data)
    document = hessdiag.audit(problem).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == "hessdiag/report@1"
    assert (document["command"], document["status"]) == ("audit", "complete")
    assert document["target"]["checkpoint"] is None
    assert [row["sigma"] for row in document["gap"]["rows"]] == [0.008, 0.01, 0.012]  # the paper's


def test_keys_and_overrides_are_the_command_lines(tmp_path):
    spec = tiny.write(tmp_path)
    problem = hessdiag.load(str(spec), overrides=["data.batch_size=7"], device="cpu", dtype="float64")
    assert problem.data_info.batches == 5
    assert problem.dtype is torch.float64
    with pytest.raises(SpecError, match=r"data\.nope"):
        hessdiag.load(spec, overrides=["data.nope=1"])


def test_data_may_be_any_re_iterable():
    x, y = (torch.from_numpy(array) for array in tiny.arrays().values())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=7)
    listed = hessdiag.Problem(tiny.network(), "cross_entropy", tiny.batches())
    loaded = hessdiag.Problem(tiny.network(), torch.nn.CrossEntropyLoss(), loader)
    assert loaded.loss_value == pytest.approx(listed.loss_value, rel=1e-6)
    assert loaded.data_info.fingerprint == listed.data_info.fingerprint


def test_names():
    assert set(dir(hessdiag)) >= NAMES
    assert set(hessdiag.__all__) == NAMES | {"__version__"}
    assert all(callable(getattr(hessdiag, name)) for name in NAMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'hessdiag' has no attribute 'hessian'"):
        hessdiag.hessian  # noqa: B018


def test_names_are_loaded_on_first_use():
    code = (
        "import sys, hessdiag\n"
        "assert not {'torch', 'numpy', 'scipy', 'pydantic', 'typer', 'rich'} & sys.modules.keys()\n"
        "hessdiag.Problem\n"
        "assert 'torch' in sys.modules and 'pydantic' not in sys.modules\n"
        "assert 'Problem' in vars(hessdiag) and 'load' not in vars(hessdiag)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
