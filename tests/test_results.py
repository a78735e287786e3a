"""Records: frozen, to the report document and back without loss, never a number that JSON does not have."""

from __future__ import annotations

import dataclasses
import json

import pytest
import tiny

import hessdiag
from hessdiag import results
from hessdiag.cost import Cost, Meter
from hessdiag.results import (
    Caution,
    CheckpointInfo,
    CrosscheckResult,
    CrosscheckRow,
    DataInfo,
    DensityResult,
    Eigenpair,
    EigenvaluesResult,
    EngineInfo,
    GapResult,
    GapRow,
    GroupTrace,
    Report,
    Target,
    TraceResult,
)

COST = Cost(forward=4, gradient=1, hvp=12.5, seconds=0.25)
REPORT = Report(
    command="audit",
    status="complete",
    target=Target(
        CheckpointInfo("w.pt", "state_dict", "ab"), 10, 20, "float32", "cpu", EngineInfo("finite-differences", 1e-3)
    ),
    data=DataInfo(30, 28.5, 3, "cd"),
    loss=0.125,
    gradient_norm=1e-3,
    eigenvalues=EigenvaluesResult(
        "lanczos", 14, True, 1e-3, (Eigenpair(3.0, 1e-4), Eigenpair(1.0, 0.0)), (Eigenpair(-0.5, 1e-5),), 0, COST
    ),
    trace=TraceResult(
        5.0, 0.1, (4.8, 5.2), 0.95, "hutchinson", 16, 16, False, 0.05, (GroupTrace("w", 10, 5.0, 0.1),), 0, COST
    ),
    gap=GapResult(
        "gaussian",
        "two-sided",
        "shared",
        4,
        0.01,
        (
            GapRow(0.01, 1e-4, 1e-5, 5e-6, 1.1e-4, 1e-6, -0.09, 0.05),
            GapRow(0.02, 4e-4, None, 5e-6, 0.0, 0.0, None, None),
        ),
        0,
        COST,
    ),
    density=DensityResult((0.0, 1.0), (0.5, 0.5), 8, 2, 0.1, (0.0, 1.0), (0.25, 0.75), 0, COST),
    crosscheck=CrosscheckResult(
        (
            CrosscheckRow("trace", 5.0, 5.1, "dense float64", 1.0, 4.0, "standard errors", True),
            CrosscheckRow("trace", 5.0, None, "pyhessian", None, 4.0, "standard errors", None, "not installed"),
        ),
        0,
        COST,
    ),
    cost=COST,
    seed=0,
    warnings=(Caution("beware"), Caution("wide: wider", "trace")),
    settings={"audit": {"trace": {"rtol": 0.05, "max_matvecs": 2000}}},
    environment={"python": "3.11"},
)


def through_json(report):
    return Report.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))


def test_round_trip():
    assert through_json(REPORT) == REPORT


def test_round_trip_of_a_measured_report(tmp_path):
    from hessdiag.spec.schema import AuditSpec, DensitySpec, GapSpec, TraceSpec

    settings = AuditSpec(
        trace=TraceSpec(max_matvecs=16), gap=GapSpec(sigma=(0.01,), draws=2), density=DensitySpec(steps=4, points=16)
    )
    report = hessdiag.audit(tiny.load(tiny.write(tmp_path)), settings)
    assert through_json(report).to_dict() == report.to_dict()
    assert through_json(report) == report


def test_whole_numbers_stay_whole():
    cost = through_json(REPORT).cost
    assert (cost.forward, cost.gradient, cost.hvp) == (4, 1, 12.5)
    assert [type(item) for item in (cost.forward, cost.gradient, cost.hvp)] == [int, int, float]
    assert '"forward": 4,' in json.dumps(REPORT.to_dict())


def test_what_was_not_measured_is_absent():
    bare = Report(command="eigs", status="partial", target=REPORT.target, data=REPORT.data, seed=0)
    document = bare.to_dict()
    assert document.keys() == {
        *("schema", "version", "command", "status", "target", "data", "cost", "seed", "settings", "environment")
    }
    assert through_json(bare) == bare


def test_warnings_are_lines_that_begin_with_their_section():
    assert REPORT.to_dict()["warnings"] == ["beware", "trace: wide: wider"]
    assert Caution.read("model: no section of a report") == Caution("model: no section of a report")


def test_what_a_method_does_not_have_is_absent():
    document = REPORT.to_dict()
    optional = {"bounds", "reason", "gauss_newton", "residual", "fit", "search", "remainder", "left_out"}
    found = [document["eigenvalues"], document["trace"], document["gap"], document["target"]["checkpoint"]]
    assert not any(optional & section.keys() for section in [*found, *document["gap"]["rows"]])


def test_what_does_not_exist_is_null():
    row = REPORT.to_dict()["gap"]["rows"][1]
    assert row["std"] is None
    assert row["relative_deviation"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_null(value):
    spoilt = dataclasses.replace(
        REPORT,
        gradient_norm=value,
        trace=dataclasses.replace(REPORT.trace, interval=(value, 5.2)),
        settings={"deep": [{"er": value}]},
    )
    document = spoilt.to_dict()
    json.dumps(document, allow_nan=False)
    assert document["trace"]["interval"] == [None, 5.2]
    assert document["settings"] == {"deep": [{"er": None}]}


def test_the_schema_comes_first_and_is_held_to():
    document = REPORT.to_dict()
    assert next(iter(document)) == "schema"
    assert document["schema"] == results.SCHEMA == "hessdiag/report@1"
    for other in ({**document, "schema": "hessdiag/report@2"}, {}, [], None, 3, "text"):
        with pytest.raises(ValueError, match="expected 'hessdiag/report@1'"):
            Report.from_dict(other)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "done"},
        {"seed": "zero"},
        {"trace": {"value": 3.0}},
        {"eigenvalues": 3},
        {"target": None},
        {"warnings": "beware"},
    ],
)
def test_a_document_of_another_form_is_refused(change):
    with pytest.raises(ValueError, match="validation error"):
        Report.from_dict({**REPORT.to_dict(), **change})


def test_records_are_frozen():
    for record in (REPORT, REPORT.cost, REPORT.trace, REPORT.eigenvalues.largest[0], REPORT.gap.rows[0], REPORT.target):
        name = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)


def test_costs_add_and_subtract():
    other = Cost(1, 2, 3, 0.5)
    assert COST + other == Cost(5, 3, 15.5, 0.75)
    assert COST + other - other == COST
    assert COST.passes == 17.5


def test_a_meter_counts_whole_passes_as_whole_numbers_and_tells_its_watcher():
    meter, told = Meter(batches_per_pass=3), []
    meter.watcher = lambda m: told.append(m.read().passes)
    for _ in range(6):
        meter.add("hvp", 1)
    meter.add("forward", 1)
    meter.expect(2)
    cost = meter.read()
    assert (cost.hvp, cost.gradient) == (2, 0)
    assert type(cost.hvp) is int
    assert cost.forward == pytest.approx(1 / 3)
    assert told == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 7 / 3, 7 / 3])
    assert meter.expected_passes == pytest.approx(2 + 1 / 3 + 2)
