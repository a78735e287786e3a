import dataclasses
import json
import math

import pytest
import report_examples as examples

from hessdiag.reports.json import render
from hessdiag.results import Caution, Eigenpair, EngineInfo, Report


@pytest.mark.parametrize("name", examples.ALL)
def test_reads_back_to_the_same_report(name):
    report = examples.ALL[name]
    assert Report.from_dict(json.loads(render(report))) == report


def test_awkward_floats_read_back_bit_for_bit():
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2]
    eigenvalues = dataclasses.replace(examples.EIGENVALUES, largest=tuple(Eigenpair(v, abs(v)) for v in values))
    text = render(dataclasses.replace(examples.FULL, eigenvalues=eigenvalues))
    read = Report.from_dict(json.loads(text)).eigenvalues
    assert [repr(pair.value) for pair in read.largest] == [repr(value) for value in values]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null_and_read_back_as_missing(bad):
    row = dataclasses.replace(examples.GAP.rows[0], std=bad, relative_deviation=bad)
    report = dataclasses.replace(
        examples.FULL,
        gradient_norm=bad,
        target=dataclasses.replace(examples.TARGET, engine=EngineInfo("finite differences", bad)),
        gap=dataclasses.replace(examples.GAP, rss=bad, rows=(row,)),
    )
    document = json.loads(render(report), parse_constant=pytest.fail)
    assert document["gap"]["rss"] is None
    assert document["gap"]["rows"][0]["std"] is None
    read = Report.from_dict(document)
    assert read.gap.rss is read.gap.rows[0].relative_deviation is read.target.engine.relative_error is None
    assert read.gradient_norm is None


def test_keys_stand_in_the_order_of_the_contract():
    document = json.loads(render(dataclasses.replace(examples.FULL, warnings=(Caution("w"),))))
    assert list(document) == [
        *("schema", "version", "command", "status", "target", "data", "loss", "gradient_norm"),
        *("eigenvalues", "trace", "gap", "cost", "seed", "warnings", "settings", "environment"),
    ]


def test_what_was_not_measured_is_absent():
    document = json.loads(render(examples.PARTIAL))
    assert document["status"] == "partial"
    assert not {"trace", "gap", "density", "crosscheck"} & set(document)


def test_layout():
    text = render(examples.FULL)
    assert text.startswith('{\n  "schema": "hessdiag/report@1",\n')
    assert text.endswith("\n}\n")
