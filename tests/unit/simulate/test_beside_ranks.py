"""jobs/experiments/simulator_beside_ranks.py, with a benchmark that is made up."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = (
    Path(__file__).parents[3] / "jobs" / "experiments" / "simulator_beside_ranks.py"
)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("simulator_beside_ranks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def benchmark(decays, rate=1.0, status=0):
    """What `subprocess.run` gives back."""
    results = [
        {"name": f"{name}, {method}", "value": value}
        for method, decay in decays.items()
        for name, value in (
            ("decay of the distance", decay),
            ("exchanges per rank and unit", rate),
        )
    ]
    text = "a table\n\n" + json.dumps({"results": results})

    def run(command, **_):
        assert command[:3] == ["mpiexec", "-n", "16"]
        return subprocess.CompletedProcess(command, status, text, "it said so")

    return run


def started(script, monkeypatch, run):
    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.setattr(
        script.sys, "argv", ["x", "--topologies", "ring", "--seeds", "2"]
    )
    return script.main()


def test_decays_of_real_ranks_are_within_a_quarter(script, monkeypatch, capsys):
    """The decays that were published for a ring of 16."""
    run = benchmark({"a2cid2": 0.315, "async": 0.123})
    assert started(script, monkeypatch, run) == 0
    assert capsys.readouterr().out.count("simulated (") == 2


def test_a_decay_that_is_a_third_off_is_found(script, monkeypatch):
    run = benchmark({"a2cid2": 0.21, "async": 0.123})
    assert started(script, monkeypatch, run) == 1


def test_a_benchmark_that_fails_or_has_no_decay_is_said(script, monkeypatch):
    with pytest.raises(SystemExit, match="it said so"):
        started(script, monkeypatch, benchmark({"a2cid2": 1.0, "async": 1.0}, status=3))
    with pytest.raises(SystemExit, match="--since"):
        started(script, monkeypatch, benchmark({"a2cid2": None, "async": 1.0}))
