"""The script for Slurm, with stand-ins for Slurm: it goes on where it was stopped."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "slurm" / "train.sbatch"


@pytest.fixture
def job(tmp_path):
    """Starts the script; `srun` writes down how it was called and ends with a status."""
    tools, venv = tmp_path / "tools", tmp_path / "venv" / "bin"
    for folder in (tools, venv):
        folder.mkdir(parents=True)
    (venv / "activate").touch()
    for name in ("srun", "scontrol"):
        path = tools / name
        path.write_text(
            f'#!/bin/sh\necho "{name} $*" >> "$CALLS"\n'
            + ("exit $STATUS\n" if name == "srun" else "")
        )
        path.chmod(0o755)

    def start(status, restarts=0):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        found = subprocess.run(
            ["bash", SCRIPT, "--epochs", "9"],
            env={
                "PATH": f"{tools}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "STATUS": str(status),
                "SLURM_SUBMIT_DIR": str(tmp_path),
                "SLURM_JOB_ID": "7",
                "SLURM_RESTART_COUNT": str(restarts),
                "ACIDMPI_VENV": str(tmp_path / "venv"),
            },
            capture_output=True,
            text=True,
            timeout=30,
        )
        return found.returncode, calls.read_text()

    return start


def test_a_job_that_was_told_to_leave_is_queued_again_and_goes_on(job, tmp_path):
    status, calls = job(75)
    assert status == 75
    assert "scontrol requeue 7" in calls
    assert "--resume" not in calls
    assert "--overwrite" not in calls
    made = tmp_path / "runs" / "slurm-7" / "checkpoints" / "set-000002"
    made.mkdir(parents=True)
    assert "--overwrite --epochs 9" in job(75, restarts=1)[1]  # it is not complete
    (made / "manifest.json").touch()
    status, calls = job(0, restarts=2)
    assert status == 0
    assert "--resume --epochs 9" in calls
    assert "scontrol" not in calls


def test_a_job_that_failed_is_not_queued_again(job):
    status, calls = job(1)
    assert status == 1
    assert "scontrol" not in calls


def test_slurm_is_asked_for_the_signal_that_the_command_listens_to():
    text = SCRIPT.read_text()
    assert "#SBATCH --signal=USR1@" in text
    assert "#SBATCH --requeue" in text
