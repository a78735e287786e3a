"""The audit: its sections and their order, what an interrupted run hands on, and what a failure leaves."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

import hessdiag
from hessdiag.cost import Cost
from hessdiag.curvature.dense import dense_hessian
from hessdiag.curvature.requests import Products, QuadraticForms
from hessdiag.errors import MeasurementError, UsageError
from hessdiag.estimators.probes import Probes, Stream
from hessdiag.results import SECTIONS, Report
from hessdiag.spec.schema import AuditSpec, DensitySpec, EigenvaluesSpec, GapSpec, TraceSpec
from hessdiag.workflows import sections as workflow

QUICK = AuditSpec(
    eigenvalues=EigenvaluesSpec(top=2, bottom=1),
    trace=TraceSpec(rtol=0.5, max_matvecs=32),
    gap=GapSpec(sigma=(0.01,), draws=3),
    density=DensitySpec(steps=6, probes=2, points=16),
)


def problem(**options):
    return hessdiag.Problem(tiny.network(), "cross_entropy", tiny.batches(), **options)


class Watched:
    """Records what the audit shows; raises where it is told to."""

    def __init__(self, stop_before=None, error=KeyboardInterrupt):
        self.seen, self.stop_before, self.error = [], stop_before, error

    def __call__(self, report, section):
        self.seen.append((report, section))
        if section == self.stop_before:
            raise self.error

    @property
    def sections(self):
        return [section for _, section in self.seen]

    @property
    def last(self):
        return self.seen[-1][0]


ALL = ("eigenvalues", "trace", "gap", "density")


def test_what_is_finished_is_seen_at_once_beside_what_is_under_way():
    watch = Watched()
    report = hessdiag.audit(problem(), QUICK, watch=watch)
    assert watch.sections[:2] == ["gradient", "eigenvalues, trace, noise gap"]
    assert watch.sections[-2:] == ["spectral density", ""]
    for (before, _), (after, under_way) in itertools.pairwise(watch.seen[1:]):
        assert set(before.sections) <= set(after.sections)
        assert not {SECTIONS[name] for name in after.sections} & set(under_way.split(", "))
    assert {partial.status for partial, _ in watch.seen[:-1]} == {"partial"}
    assert watch.last is report
    assert report.status == "complete"
    assert report.sections == ALL


def test_no_number_depends_on_what_is_measured_beside_it():
    together = hessdiag.audit(problem(), QUICK, seed=3)
    for name in ("eigenvalues", "trace", "density"):
        alone = hessdiag.audit(problem(), QUICK.only([name]), seed=3)
        assert alone.sections == (name,)
        if name == "density":
            assert_same_density(alone.density, together.density)
        else:
            assert costless(getattr(alone, name)) == costless(getattr(together, name))
    gap = hessdiag.audit(problem(), QUICK.only(["trace", "gap"]), seed=3).gap
    assert costless(gap) == costless(together.gap)


def costless(result):
    """What is shared with others costs less."""
    return replace(result, cost=Cost())


def assert_same_density(one, other):
    """To rounding: what it takes over from the eigenvalues was multiplied alone, not with the other probes."""
    for name in ("grid", "density", "nodes", "weights"):
        found, expected = torch.tensor(getattr(one, name)), torch.tensor(getattr(other, name))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert (one.steps, one.probes, one.seed) == (other.steps, other.probes, other.seed)


def test_the_numbers_are_the_problems():
    p = problem()
    report = hessdiag.audit(p, QUICK, seed=3)
    assert report.loss == p.loss_value
    assert report.gradient_norm == pytest.approx(p.gradient().norm().item(), rel=1e-6)
    assert report.seed == report.trace.seed == report.eigenvalues.seed == report.gap.seed == 3
    H = hessdiag.HessianOperator(p)
    assert costless(report.trace) == costless(hessdiag.trace(H, rtol=0.5, max_matvecs=32, seed=3))
    assert costless(report.eigenvalues) == costless(hessdiag.eigenvalues(H, top=2, bottom=1, seed=3))
    density = hessdiag.spectral_density(H, steps=6, probes=2, points=16, seed=3)
    assert_same_density(report.density, density)
    gap = hessdiag.noise_gap(p, sigmas=[0.01], draws=3, seed=3, trace=report.trace)
    assert costless(report.gap) == costless(gap)
    assert [row.sigma for row in report.gap.rows] == [0.01]
    assert (report.density.steps, report.density.probes, len(report.density.grid)) == (6, 2, 16)


@pytest.mark.parametrize("skipped", ["eigenvalues", "density"])
def test_a_null_section_is_skipped(skipped):
    report = hessdiag.audit(problem(), QUICK.model_copy(update={skipped: None}))
    assert report.sections == tuple(name for name in ALL if name != skipped)
    assert skipped not in report.to_dict()


def test_the_gap_brings_the_trace_with_it():
    data = [(torch.tensor([[0.3], [1.1]]), torch.tensor([[1.0], [2.0]]))]  # one weight: a few probes do
    line = hessdiag.Problem(nn.Linear(1, 1, bias=False), "mse", data)
    report = hessdiag.audit(line, AuditSpec(eigenvalues=None, trace=None, gap=QUICK.gap))
    assert report.sections == ("trace", "gap")
    assert report.gap.rows[0].predicted == pytest.approx(0.01**2 / 2 * report.trace.value)


def test_nothing_asked_is_loss_and_gradient():
    report = hessdiag.audit(problem(), QUICK.only(()))
    assert report.sections == ()
    assert report.status == "complete"
    assert report.gradient_norm > 0


def test_cost_is_the_sum_of_what_was_done():
    report = hessdiag.audit(problem(), QUICK)
    parts = [getattr(report, name).cost for name in ALL]
    assert report.cost.forward == 3 + sum(part.forward for part in parts)  # twice to begin with, once for the loss
    # The engine was tried on single batches before.
    assert 1 <= report.cost.gradient - sum(part.gradient for part in parts) < 2
    assert 0 <= report.cost.hvp - sum(part.hvp for part in parts) < 2


# -- going on ----------------------------------------------------------------------------------------------


def interrupted(p=None, when="density", settings=QUICK, **options):
    """The report that a Ctrl-C leaves as soon as this section is under way alone, the others being finished."""
    watch = Watched(SECTIONS[when])
    with pytest.raises(KeyboardInterrupt):
        hessdiag.audit(p or problem(), settings, watch=watch, **options)
    return Report.from_dict(watch.last.to_dict())  # as read from a file


@pytest.mark.parametrize("finished", [(), ("eigenvalues",), ("trace",), ("eigenvalues", "trace", "gap"), ALL])
def test_finished_sections_are_taken_over(finished):
    previous, watch = interrupted(), Watched()
    whole = hessdiag.audit(problem(), QUICK)
    left = {name: getattr(whole, name) if name in finished else None for name in ALL}
    previous = replace(previous, **left)
    report = hessdiag.audit(problem(), QUICK, previous=previous, watch=watch)
    under_way = {name for sections in watch.sections[1:-1] for name in sections.split(", ")}
    taken_over = [name for name in finished if name != "eigenvalues" or "density" in finished]
    assert under_way == {SECTIONS[name] for name in ALL if name not in taken_over}
    assert all(getattr(report, name) == getattr(previous, name) for name in taken_over)
    assert tiny.without_costs(report.to_dict()) == tiny.without_costs(whole.to_dict())
    assert report.cost.passes >= whole.cost.passes - 1e-6


def taken_over(previous, p=None, settings=QUICK, **options):
    watch = Watched()
    hessdiag.audit(p or problem(), settings, previous=previous, watch=watch, **options)
    return not any("trace" in sections for sections in watch.sections)


def test_the_same_again_is_taken_over():
    assert taken_over(interrupted())


def other_weights():
    p = problem()
    with torch.no_grad():
        p.model[0].weight[0, 0] += 1e-3
    return hessdiag.Problem(p.model, "cross_entropy", tiny.batches())


OTHERS = {
    "seed": {"seed": 1},
    "settings": {"settings": QUICK.model_copy(update={"trace": TraceSpec(rtol=0.4, max_matvecs=32)})},
    "command": {"command": "other"},
    "weights": {"p": other_weights},
    "split": {"p": lambda: hessdiag.Problem(tiny.network(), "cross_entropy", tiny.batches(7))},
    "data": {"p": lambda: hessdiag.Problem(tiny.network(), "cross_entropy", tiny.batches()[:2])},
    "selection": {"p": lambda: problem(include=["0.*"])},
    "loss": {"p": lambda: hessdiag.Problem(tiny.network(), nn.CrossEntropyLoss(label_smoothing=0.1), tiny.batches())},
    "dtype": {"p": lambda: hessdiag.Problem(tiny.network().double(), "cross_entropy", tiny.batches())},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_not_taken_over(what):
    options = dict(OTHERS[what])
    if "p" in options:
        options["p"] = options["p"]()
    assert not taken_over(interrupted(), **options)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.0.1"},
        {"environment": {"torch": "1.0"}},
        {"loss": 1.0},
        {"gradient_norm": 1.0},
        {"status": "complete"},
    ],
)
def test_a_report_that_differs_is_not_taken_over(change):
    assert not taken_over(replace(interrupted(), **change))


def test_options_of_a_loss_survive_the_file():
    def weighted():
        return hessdiag.Problem(tiny.network(), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), tiny.batches())

    assert taken_over(interrupted(weighted()), weighted())


class Scaled:
    """A loss that is an object, and whose repr has its address in it."""

    def __call__(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none") * 2


def test_a_loss_that_is_an_object_is_known_again():
    def scaled():
        return hessdiag.Problem(tiny.network(), Scaled(), tiny.batches())

    previous = interrupted(scaled())
    assert "0x" not in str(previous.settings)
    assert taken_over(previous, scaled())


# -- failing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MeasurementError("no second derivative"), KeyError("a bug")])
def test_a_failure_keeps_what_was_finished_and_is_raised(monkeypatch, error):
    def fail(job):
        raise error

    watch = Watched()
    with monkeypatch.context() as patch:
        patch.setitem(workflow._STEPS, "density", fail)
        with pytest.raises(type(error)) as caught:
            hessdiag.audit(problem(), QUICK, watch=watch)
    assert caught.value is error
    assert watch.last.status == "failed"
    assert watch.last.sections == ("eigenvalues", "trace", "gap")
    assert watch.last.cost.hvp > 0
    assert taken_over(Report.from_dict(watch.last.to_dict()))  # out of memory once is not for ever


def test_a_failure_beside_others_keeps_those_that_were_finished(monkeypatch):
    def soon(job):
        yield QuadraticForms(Probes(job.H.n, seed=0, stream=Stream.TRACE), range(2))
        return report.trace

    def late(job):
        for _ in range(3):
            yield Products(torch.ones(job.H.n, 1))
        raise MeasurementError("the third product")

    report = hessdiag.audit(problem(), QUICK.only(["trace"]))
    watch = Watched()
    monkeypatch.setitem(workflow._STEPS, "trace", soon)
    monkeypatch.setitem(workflow._STEPS, "eigenvalues", late)
    with pytest.raises(MeasurementError, match="the third product"):
        hessdiag.audit(problem(), QUICK.only(["eigenvalues", "trace"]), watch=watch)
    assert watch.sections == ["gradient", "eigenvalues, trace", "eigenvalues", ""]
    assert (watch.last.status, watch.last.sections) == ("failed", ("trace",))


def test_more_eigenvalues_than_parameters():
    with pytest.raises(UsageError, match="43 parameters have 43 eigenvalues"):
        hessdiag.audit(problem(), AuditSpec(eigenvalues=EigenvaluesSpec(top=43, bottom=1)))


def test_a_gradient_that_is_not_finite_is_no_result():
    def loss(outputs, targets):
        units = outputs.square().sum(1)
        return (units * 0).sqrt() if len(units) == 6 else units  # the last batch alone

    with pytest.raises(MeasurementError, match="gradient of the loss has norm nan"):
        hessdiag.audit(hessdiag.Problem(tiny.network(), loss, tiny.batches()), QUICK)


def test_what_did_not_converge_is_a_result_with_a_warning():
    settings = AuditSpec(
        eigenvalues=EigenvaluesSpec(top=3, bottom=3, rtol=1e-9, max_matvecs=13),
        trace=TraceSpec(rtol=1e-9, max_matvecs=16),
        gap=None,
    )
    report = hessdiag.audit(problem(), settings)
    assert (report.status, report.eigenvalues.converged, report.trace.converged) == ("complete", False, False)
    assert [warning.section for warning in report.warnings] == ["eigenvalues", "trace"]
    assert all("raise" in warning.text and "max_matvecs" in warning.text for warning in report.warnings)


# -- in time -----------------------------------------------------------------------------------------------


HARD = QUICK.model_copy(update={"trace": TraceSpec(rtol=1e-6, method="hutchinson"), "max_time": 60.0})


def test_when_the_time_is_up_sections_end_with_what_they_have():
    report = hessdiag.audit(problem(), HARD, started=time.perf_counter() - 60)
    assert report.status == "complete"
    assert report.sections == ALL
    assert not report.eigenvalues.converged
    assert not report.trace.converged
    assert report.trace.probes == 16
    assert report.density.steps < 6
    said = {warning.section: warning.text for warning in report.warnings}
    assert {"eigenvalues", "trace", "density"} <= said.keys()
    assert all("the time was up (max_time)" in text for text in said.values())
    assert all(pair.residual_norm >= 0 for pair in report.eigenvalues.largest)


def test_time_enough_changes_nothing_but_the_settings():
    plenty = hessdiag.audit(problem(), QUICK.model_copy(update={"max_time": 3600.0})).to_dict()
    assert plenty["settings"]["audit"].pop("max_time") == 3600
    assert tiny.without_times(plenty) == tiny.without_times(hessdiag.audit(problem(), QUICK).to_dict())


def test_without_a_gauss_newton_part_the_trace_follows_the_eigenvalues_and_uses_their_vectors(monkeypatch):
    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    def own(*args, **options):
        used.append(options["basis"])
        return steps(*args, **options)

    used, steps, watch = [], workflow.trace_steps, Watched()
    monkeypatch.setattr(workflow, "trace_steps", own)
    p = hessdiag.Problem(tiny.network(), loss, tiny.batches())
    report = hessdiag.audit(p, QUICK, watch=watch)
    assert {"eigenvalues, noise gap", "trace, spectral density"} <= set(watch.sections)
    (vectors, products), H = used.pop(), hessdiag.HessianOperator(p)
    assert vectors.shape == (43, 3)
    torch.testing.assert_close(products, H.matmat(vectors))
    exact = float(dense_hessian(p).trace())
    assert abs(report.trace.value - exact) < 4 * report.trace.stderr

    without_trace = replace(report, status="partial", trace=None, gap=None, density=None)
    again = hessdiag.audit(p, QUICK, previous=without_trace)
    assert used.pop() is not None  # the eigenvalues are measured again, for their vectors
    assert tiny.without_costs(again.to_dict()) == tiny.without_costs(report.to_dict())
    hessdiag.audit(problem(), QUICK)
    assert used.pop() is None


def test_a_section_that_was_cut_short_says_so_after_it_is_taken_over_too():
    late = time.perf_counter() - 60
    previous = interrupted(settings=HARD, started=late)
    report = hessdiag.audit(problem(), HARD, previous=previous, started=late)
    assert report.trace == previous.trace
    assert [str(said) for said in report.warnings if said.section == "trace"] == [
        str(said) for said in previous.warnings if said.section == "trace"
    ]


def test_the_cost_is_foretold_once_for_what_is_left():
    told = []
    hessdiag.audit(problem(), QUICK, told=told.append)
    hessdiag.audit(problem(), QUICK, previous=interrupted(), told=told.append)
    assert len(told) == 2
    assert told[0].passes > told[1].passes
    assert told[1].forward == 0


def test_the_model_is_as_it_was(monkeypatch):
    model = tiny.network().train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    gradients = [parameter.grad for parameter in model.parameters()]
    before = {name: item.clone() for name, item in model.state_dict().items()}
    p = hessdiag.Problem(model, "cross_entropy", tiny.batches())
    for stop in ("eigenvalues, trace, noise gap", "spectral density", None):
        try:
            hessdiag.audit(p, QUICK, watch=Watched(stop))
        except KeyboardInterrupt:
            assert stop
        assert all(torch.equal(item, before[name]) for name, item in model.state_dict().items())
        assert all(p.grad is g and bool((g == 1).all()) for p, g in zip(model.parameters(), gradients, strict=True))
        assert all(module.training for module in model.modules())
