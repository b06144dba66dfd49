"""Scripts that are started outside the environment say so in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[3] / "jobs"

SCRIPTS = (
    "benchmarks/batch.py",
    "experiments/run.py",
    "experiments/simulator_beside_ranks.py",
    "faults/drill.py",
    "faults/soak.py",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_line_names_what_is_missing_and_the_cure(script):
    # -S: no site-packages; -E: no PYTHONPATH.
    command = [sys.executable, "-S", "-E", JOBS / script, "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: No module named ")
    assert "source .venv/bin/activate" in line
