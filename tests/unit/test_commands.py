"""What commands that run on all ranks say before MPI starts: it is said once."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from acidmpi.config.launched import RANK_VARIABLES, speaks

COMMANDS = ["train", "bench", "doctor"]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=COMMANDS)
def main(request):
    return import_module(f"acidmpi.{request.param}.cli").main


@pytest.mark.parametrize("variable", RANK_VARIABLES)
def test_rank_0_of_each_launcher_speaks(monkeypatch, variable):
    assert speaks()
    for rank in range(3):
        monkeypatch.setenv(variable, str(rank))
        assert speaks() == (rank == 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_help_is_shown_once(monkeypatch, capsys, main, rank):
    monkeypatch.setenv("PMI_RANK", str(rank))
    assert main(["--help"]) == 0
    assert ("usage:" in capsys.readouterr().out) == (rank == 0)


@pytest.mark.parametrize("name", ["bench", "doctor"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_is_told_once(monkeypatch, capsys, name, rank):
    """Training tells it once all ranks have met, which its own tests see to."""
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
    assert import_module(f"acidmpi.{name}.cli").main(["--such-a-thing"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert ("--such-a-thing" in said.err) == (rank == 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(
    "command",
    ["simulate --ranks 2 --units 2 --output {}", "doctor --size-bytes 8", "bench"],
)
def test_nobody_takes_what_is_printed(tmp_path, command):
    """One line, not a traceback: as behind `| head`, or on a disk that is full."""
    words = command.format(tmp_path / "run").split()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", f"acidmpi.{words[0]}", *words[1:]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "acidmpi: error: standard output cannot be written: No space left on device"
    ]


PLAN = [sys.executable, "-m", "acidmpi.simulate", "plan", "--ranks", "4"]


def test_letters_that_the_terminal_lacks_are_no_error():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    plan = [*PLAN, "--latency-seconds", "5e-6", "--gradient-seconds", "1e-4"]
    done = subprocess.run(plan, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?s" in done.stdout


def test_a_command_without_a_standard_output_shows_nothing():
    closed = ["bash", "-c", 'exec "$@" >&-', "bash", *PLAN]
    done = subprocess.run(closed, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_run_goes_on_though_nobody_takes_its_lines(tmp_path):
    run = tmp_path / "run"
    options = ["--task", "quadratic", "--epochs", "1", "--output", str(run)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "acidmpi.train", *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be written: No space left on device; the run goes on" in done.stderr
    assert (run / "summary.json").exists()
