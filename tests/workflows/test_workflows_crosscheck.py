"""The crosscheck: our numbers beside PyHessian's and a dense Hessian's, with the same weighting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

import hessdiag
from hessdiag.curvature.dense import dense_hessian
from hessdiag.errors import MeasurementError
from hessdiag.spec.schema import AuditSpec, EigenvaluesSpec, TraceSpec
from hessdiag.workflows import crosscheck as workflow
from hessdiag.workflows.crosscheck import crosscheck
from hessdiag.workflows.pyhessian_adapter import pyhessian_of

DIGITS = Path(__file__).parents[2] / "fixtures/digits/audit.yaml"
QUICK = AuditSpec(eigenvalues=EigenvaluesSpec(top=2, bottom=1), trace=TraceSpec(rtol=0.1, max_matvecs=256))


def problem(model=None, loss="cross_entropy", data=None, **options):
    return hessdiag.Problem(model or tiny.network(), loss, data or tiny.batches(), **options)


def rows(report):
    return {(row.reference_name, row.quantity): row for row in report.crosscheck.rows}


def test_everything_agrees_on_the_digits():
    digits = hessdiag.load(DIGITS, overrides=["parameters.include=['fc2*']", "data.max_examples=300"])
    report = crosscheck(digits, QUICK)
    assert report.command == "crosscheck"
    assert report.status == "complete"
    found = rows(report)
    assert list(found) == [
        ("pyhessian", "eigenvalue of largest magnitude"),
        ("pyhessian", "trace"),
        ("dense float64", "largest eigenvalue"),
        ("dense float64", "smallest eigenvalue"),
        ("dense float64", "trace"),
        ("dense float64", "norm of Hv, random v"),
    ]
    assert all(row.agrees for row in found.values())
    assert all(row.difference <= row.tolerance for row in found.values())
    assert {key: row.unit for key, row in found.items() if row.quantity == "trace"} == {
        ("pyhessian", "trace"): "standard errors",
        ("dense float64", "trace"): "standard errors",
    }
    assert found["dense float64", "norm of Hv, random v"].difference < 1e-5
    assert report.crosscheck.cost.hvp >= digits.n


def test_a_wrong_number_does_not_agree(monkeypatch):
    monkeypatch.setattr(workflow, "dense_hessian", lambda p: 1.05 * dense_hessian(p))
    found = rows(crosscheck(problem(), QUICK))
    assert not found["dense float64", "largest eigenvalue"].agrees
    assert not found["dense float64", "norm of Hv, random v"].agrees
    assert found["pyhessian", "eigenvalue of largest magnitude"].agrees


def line():
    """One weight, and so a trace that every probe gives exactly."""
    data = [(torch.tensor([[0.3], [0.7], [1.1]]), torch.tensor([[1.0], [0.0], [2.0]]))]
    return problem(nn.Linear(1, 1, bias=False), "mse", data)


def test_a_trace_that_is_exact_but_for_rounding_agrees():
    settings = AuditSpec(eigenvalues=EigenvaluesSpec(top=1, bottom=0))
    found = rows(crosscheck(line(), settings))
    assert found["dense float64", "trace"].agrees
    assert found["pyhessian", "trace"].agrees
    assert ("dense float64", "smallest eigenvalue") not in found


def test_more_than_max_dense_is_said():
    report = crosscheck(problem(), QUICK, max_dense=42)
    dense = [row for row in report.crosscheck.rows if row.reference_name == "dense float64"]
    assert len(dense) == 1
    assert (dense[0].reference, dense[0].difference, dense[0].agrees) == (None, None, None)
    assert dense[0].note == "not formed: 43 parameters are more than 42"
    assert dense[0].unit == "standard errors"


def test_pyhessian_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    found = rows(crosscheck(problem(), QUICK))
    for quantity in ("eigenvalue of largest magnitude", "trace"):
        row = found["pyhessian", quantity]
        assert row.agrees is None
        assert row.reference is None
        assert "pyhessian cannot be imported" in row.note
        assert "pip install pyhessian" in row.note
    assert found["dense float64", "trace"].agrees


@pytest.mark.parametrize("error", [RuntimeError("cannot\ntake it"), ZeroDivisionError("odd"), IndexError()])
def test_whatever_pyhessian_cannot_take_is_said(monkeypatch, error):
    def refuse(p):
        raise error

    monkeypatch.setattr(workflow, "pyhessian_of", refuse)
    found = rows(crosscheck(problem(), QUICK))
    note = found["pyhessian", "trace"].note
    assert note == ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    assert found["dense float64", "trace"].agrees


def test_a_dense_hessian_that_cannot_be_had_is_said(monkeypatch):
    def refuse(p):
        raise MeasurementError("out of memory (8 n^2 bytes): select fewer parameters")

    monkeypatch.setattr(workflow, "dense_hessian", refuse)
    found = rows(crosscheck(problem(), QUICK))
    assert found["dense float64", "trace"].note == "out of memory (8 n^2 bytes): select fewer parameters"
    assert found["pyhessian", "trace"].agrees


def test_bfloat16_is_beyond_pyhessian_and_said():
    report = crosscheck(problem(tiny.network().bfloat16()), QUICK)
    assert "bfloat16" in rows(report)["pyhessian", "trace"].note


def test_spec_skips_no_section_of_a_crosscheck():
    report = crosscheck(line(), AuditSpec(eigenvalues=EigenvaluesSpec(top=1, bottom=0), trace=None, gap=None))
    assert report.eigenvalues is not None
    assert report.trace is not None
    assert report.gap is None


# -- the adapter -------------------------------------------------------------------------------------------


class Ragged(nn.Module):
    """Unused and frozen parameters, and an output for each of three positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.inner = nn.Linear(4, 5)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.frozen(torch.tanh(self.inner(x)))))


def ragged_data():
    """Batches of 12, 12 and 6 examples, of which 2, 12 and 6 count."""
    data = []
    for (x, y), ignored in zip(tiny.batches(), (10, 0, 0), strict=True):
        y = y.clone()
        y[:ignored] = -100
        data.append((3 * x, y))
    return data


@pytest.mark.parametrize(
    "name", ["ignored targets", "unused parameters", "class weights", "float64", "a batch of nothing"]
)
def test_pyhessian_weighs_batches_as_we_do(name):
    p = {
        "ignored targets": lambda: problem(data=ragged_data()),
        "unused parameters": lambda: problem(Ragged(), data=ragged_data()),
        "class weights": lambda: problem(loss=nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0]))),
        "float64": lambda: problem(Ragged().double(), data=ragged_data()),
        "a batch of nothing": lambda: problem(data=[*ragged_data(), (torch.ones(2, 4), torch.tensor([-100, -100]))]),
    }[name]()
    matrix = dense_hessian(p)
    values = torch.linalg.eigvalsh(matrix)
    dominant = float(max(values, key=abs))
    with pyhessian_of(p) as other:
        assert other.eigenvalue(500, seed=0) == pytest.approx(dominant, rel=0.01)
        trace, stderr = other.trace(300, seed=0)
    assert stderr < 0.2 * float(torch.linalg.matrix_norm(matrix))
    assert abs(trace - float(matrix.trace())) < 4 * stderr


def test_equal_weights_would_be_wrong():
    """The test above can fail: the mean over batches of their means is another matrix."""
    p = problem(data=ragged_data())
    parts = [dense_hessian(problem(data=[batch])) for batch in ragged_data()]
    unweighted = float(torch.linalg.eigvalsh(torch.stack(parts).mean(0))[-1])
    weighted = float(torch.linalg.eigvalsh(dense_hessian(p))[-1])
    assert abs(unweighted - weighted) > 0.03 * weighted


def test_the_model_is_left_as_it_was():
    model = Ragged().train()
    kept = {name: torch.full_like(p, 7.0) for name, p in model.named_parameters() if "head" in name}
    for name, parameter in model.named_parameters():
        parameter.grad = kept.get(name)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before = {name: item.clone() for name, item in model.state_dict().items()}
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    with pyhessian_of(problem(model)) as other:
        other.eigenvalue(5, seed=0)
        other.trace(3, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_default_dtype() is torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad is kept.get(name)
        assert parameter.requires_grad == flags[name]
    assert all(bool((gradient == 7).all()) for gradient in kept.values())
    assert all(torch.equal(item, before[name]) for name, item in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_gradients_come_back_after_a_failure_too():
    p = problem()
    gradient = p.model[0].weight.grad = torch.ones(5, 4)
    with pytest.raises(KeyboardInterrupt), pyhessian_of(p):
        raise KeyboardInterrupt
    assert p.model[0].weight.grad is gradient
