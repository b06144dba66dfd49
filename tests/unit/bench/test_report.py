"""A figure says what it is compared with; a report ends in one line of strict JSON."""

import json
import math

import pytest

from acidmpi.bench.report import Figure, from_kernels, report, table

KEYS = ["schema", "benchmark", "command", "commit", "hardware", "versions", "results"]


def figure(**more):
    return Figure(**{"name": "a name", "value": 3.0, "unit": "ms"} | more)


@pytest.mark.parametrize(
    ("bounds", "asked"),
    [
        ({}, ""),
        ({"at_most": 3.0}, "≤ 3 met"),
        ({"at_most": 2.9}, "≤ 2.9 MISSED"),
        ({"at_least": 3.0}, "≥ 3 met"),
        ({"at_least": 3.1}, "≥ 3.1 MISSED"),
        ({"at_most": 0.5, "rival": 6.0}, "≤ 0.5 met"),
        ({"at_most": 0.4, "rival": 6.0}, "≤ 0.4 MISSED"),
        ({"at_least": 0.6, "rival": 6.0}, "≥ 0.6 MISSED"),
        ({"at_least": 0.1, "value": math.nan}, "≥ 0.1 MISSED"),
        ({"at_most": 0.1, "value": math.nan, "rival": 1.0}, "≤ 0.1 MISSED"),
    ],
)
def test_a_bound_is_on_the_ratio_where_there_is_a_rival(bounds, asked):
    assert figure(**bounds).asked == asked


def test_limit_and_ratio_belong_together():
    told = figure(rival=6.0, at_most=0.7).described()
    assert told == {
        "name": "a name",
        "value": 3.0,
        "unit": "ms",
        "limit": 6.0,
        "ratio": 0.5,
    }
    assert figure(at_most=6.0).described() == told
    alone = figure().described()
    assert (alone["limit"], alone["ratio"]) == (None, None)


def test_what_is_not_finite_is_null():
    told = figure(value=math.nan, rival=math.inf).described()
    assert (told["value"], told["limit"], told["ratio"]) == (None, None, None)


def test_the_last_line_is_one_json_object():
    figures = [figure(), figure(name="another", value=math.nan, rival=2.0)]
    *lines, last = report("step", ["python", "x"], 3, figures).splitlines()
    found = json.loads(last, parse_constant=pytest.fail)
    assert list(found) == KEYS
    assert (found["schema"], found["benchmark"]) == (1, "step")
    assert found["command"] == "python x"
    assert found["hardware"]["ranks"] == 3
    assert found["hardware"]["cores"] >= 1
    assert {"python", "numpy", "acidmpi"} <= set(found["versions"])
    assert [r["name"] for r in found["results"]] == ["a name", "another"]
    assert any("another" in line for line in lines)


def test_settings_of_the_transport_are_recorded_and_paths_are_not(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_btl", "self,tcp")
    monkeypatch.setenv("OMPI_MCA_initial_wdir", "/somewhere")
    (*_, last) = report("step", [], 1, [figure()]).splitlines()
    settings = json.loads(last)["hardware"]["settings"]
    assert settings["OMPI_MCA_btl"] == "self,tcp"
    assert "OMPI_MCA_initial_wdir" not in settings


def test_columns_are_aligned():
    figures = [
        figure(rival=6.0, beside="the rival", at_most=0.7, note="noted"),
        figure(name="a much longer name", value=123456.0, unit=""),
    ]
    head, *lines = table(figures).splitlines()
    assert lines[0].index("the rival 6") == head.index("beside")
    assert lines[0].index("≤ 0.7 met") == head.index("asked")
    ends = [lines[0].index("3 ms") + 4, lines[1].index("123,456") + 7]
    assert ends == [head.index("value") + 5] * 2


def test_results_of_the_kernels_are_taken_over_and_bounded():
    copy = {"name": "n", "value": 2.0, "unit": "GB/s", "limit": 4.0, "ratio": 0.5}
    step = copy | {"name": "step beside torch", "unit": "ms"}
    fused = copy | {"name": "step beside torch, fused", "unit": "ms"}
    found = from_kernels([copy, step, fused])
    assert [f.described() for f in found] == [copy, step, fused]
    assert [f.asked for f in found] == ["≥ 0.9 MISSED", "≤ 0.7 met", ""]
