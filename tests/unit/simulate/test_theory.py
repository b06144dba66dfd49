"""The experiment's own arithmetic, and its numbers on a ring of 16."""

import io
import json

import numpy as np
import pytest

from acidmpi.config.experiments import TheoryConfig
from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate import theory
from acidmpi.simulate.experiment import repeat
from acidmpi.simulate.outcome import Outcome, RankTotals, Sample, median


def outcome_of(distances):
    samples = [Sample(10.0 * k, 0, 0, d, None, None) for k, d in enumerate(distances)]
    return Outcome(0, 1.0, [RankTotals()], samples=samples)


def test_the_time_to_a_distance_is_on_the_line_between_samples():
    outcome = outcome_of([1.0, 1e-2, 1e-4])
    assert theory.time_to(outcome, 1e-3) == pytest.approx(15.0)
    assert theory.time_to(outcome, 1e-5) is None


def test_the_power_of_growth():
    assert theory.exponent([16, 32, 64], [3.0, 12.0, 48.0]) == pytest.approx(2.0)
    assert theory.exponent([16, 32], [1.0, None]) is None


def test_a_fit_sees_no_noise_of_rounding():
    outcome = outcome_of([*np.exp(-2.0 * np.arange(10)), 1e-33, 1e-33])
    outcome.floor = 1e-30
    assert outcome.decay(0.0) == pytest.approx(0.2)
    outcome.floor = 0.0
    assert outcome.decay(0.0) != pytest.approx(0.2)


@pytest.mark.parametrize("method", ["async", "a2cid2"])
def test_decay_on_a_ring_of_16(method):
    options = SimulateConfig(method=method, units=100.0, dimension=16)
    outcomes = repeat(options, 20)
    found = median([o.decay(20.0) for o in outcomes])
    assert found == pytest.approx(theory.TYPICAL[method][16], rel=0.1)
    assert max(o.mean_drift for o in outcomes) < 1e-12


def test_twice_the_mixing_is_caught():
    options = SimulateConfig(units=100.0, dimension=16, assumed_rate=3.0)
    found = median([o.decay(20.0) for o in repeat(options, 20)])
    assert found != pytest.approx(theory.TYPICAL["a2cid2"][16], rel=0.1)


def test_tables_and_a_line_of_results_are_printed(monkeypatch, tmp_path):
    monkeypatch.setattr(theory, "WINDOWS", {16: (5.0, 20.0)})
    monkeypatch.setattr(theory, "sizes", lambda largest: [4, 8])
    config = TheoryConfig(
        seeds=1, growth_seeds=1, target=1e-3, dimension=2, output=tmp_path
    )
    out = io.StringIO()
    theory.run(config, out)
    *tables, line = out.getvalue().splitlines()
    assert any("16 ranks, a2cid2" in row for row in tables)
    assert any(row.startswith("complete, async") for row in tables)
    found = json.loads(line)
    assert found == json.loads((tmp_path / "theory.json").read_text())
    assert {"decay, ring 16, async", "power of growth, ring, a2cid2"} <= {
        r["name"] for r in found["results"]
    }
