"""What the experiments show in small, and the arithmetic of their choice."""

import io
import json

import pytest

from acidmpi.config.experiments import CompareConfig, LossesConfig, SafetyConfig
from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate import compare, losses, safety
from acidmpi.simulate.cli import main
from acidmpi.simulate.experiment import Result, repeat
from acidmpi.simulate.outcome import median
from acidmpi.simulate.safety import Figures


def decay(**changes):
    options = {"ranks": 32, "units": 120.0, "dimension": 8, "samples": 60}
    outcomes = repeat(SimulateConfig(**{**options, **changes}), 3)
    return median([o.decay() for o in outcomes])


def test_what_is_done_wrong_slows_averaging_down():
    exact = decay()
    assert decay(order="authors") < 0.5 * exact
    assert decay(rematch=0.9) < 0.5 * exact
    assert decay(assumed_rate=3.0) < 0.5 * exact
    assert decay(transfer_units=0.5, overlap=True) < 0.5 * exact
    assert decay(rematch=0.0) > exact


def test_every_row_of_losses_is_a_simulation_that_can_be(tmp_path):
    config = LossesConfig(ranks=8, units=4.0, seeds=1, dimension=2, output=tmp_path)
    out = io.StringIO()
    losses.run(config, out)
    *rows, line = out.getvalue().splitlines()
    assert len(rows) == 2 + len(losses.cases(config))
    assert json.loads(line) == json.loads((tmp_path / "losses.json").read_text())


def test_safety_tries_every_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(safety, "GRAPHS", ("ring",))
    monkeypatch.setattr(safety, "CURVATURES", (0.1,))
    config = SafetyConfig(
        largest=16, longest=0.2, units=4.0, seeds=1, dimension=2, output=tmp_path
    )
    out = io.StringIO()
    safety.run(config, out)
    found = json.loads(out.getvalue().splitlines()[-1])["results"]
    names = [r["name"] for r in found]
    assert sum(name.startswith("noise, 16 ranks") for name in names) == 3 * 6
    assert sum(name.startswith("noise, lr x curvature 0.1") for name in names) == 6
    assert sum(name.startswith("exact decay, ring") for name in names) == 6


def figures(decay, noise, spread=1.0, diverged=0):
    return Figures(decay, noise, spread, diverged)


def test_the_choice_is_the_value_whose_worst_loss_is_least():
    one = [figures(d, n) for d, n in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2)]]
    assert safety.losses(one) == pytest.approx([6, 3, 2, 1.5, 1.2, 2])
    other = [figures(1, n) for n in (1, 1, 1, 1, 4, 1)]
    worst = safety.worst_losses([one, other])
    assert worst == pytest.approx([6, 3, 2, 1.5, 4, 2])
    assert safety.choice(worst) == 0.8


def test_a_value_that_diverges_loses_everything():
    row = [figures(1, 1)] * 5 + [figures(9, None, diverged=1)]
    assert safety.losses(row)[-1] == float("inf")


def test_a_result_beside_its_limit():
    assert Result("x", 3.0, "1/unit", 2.0).ratio == 1.5
    assert Result("x", 3.0, "1/unit").ratio is None
    assert Result("x", 3.0, "", 0.0).ratio is None


def test_compare_shows_every_method_and_draws(tmp_path):
    config = CompareConfig(
        workload="quadratic",
        ranks=4,
        units=6.0,
        seeds=2,
        dimension=3,
        speeds="stragglers",
        output=tmp_path,
    )
    out = io.StringIO()
    compare.run(config, out)
    *rows, line = out.getvalue().splitlines()
    assert len(rows) == 2 + len(compare.METHODS)
    values = {r["name"]: r["value"] for r in json.loads(line)["results"]}
    assert values["share of waiting, allreduce"] > 0.4
    assert values["share of waiting, a2cid2, rate 1"] == 0
    exact = values["vectors sent for a gradient, gossip"]
    assert exact == pytest.approx(1.0)


def test_figures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--ranks", "4", "--units", "5", "--dimension", "3", "--figure"]
    assert main([*arguments, "--output", str(tmp_path)], io.StringIO()) == 0
    assert (tmp_path / "consensus.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_needs_a_folder(capsys):
    assert main(["compare", "--figure"], io.StringIO()) == 2
    assert "add --output" in capsys.readouterr().err
