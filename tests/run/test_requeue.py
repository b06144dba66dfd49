"""The script for Slurm, with stand-ins for Slurm: it goes on where it was stopped."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "slurm" / "train.sbatch"


# The kernel calls it bash, like the script itself.
STAND_IN = """#!/usr/bin/env bash
echo "{name} $*" >> "$CALLS"
[[ {name} == scontrol ]] && exit 0
finish() {{
    [[ $1 == 0 ]] || exit "$1"
    mkdir -p "$RUN"
    echo '"stop_reason": "finished",' > "$RUN/summary.json"
    exit 0
}}
[[ $MISHAPS -gt 0 && $(grep -c "{name}" "$CALLS") -gt $MISHAPS ]] && finish 0
[[ $STATUS == lost ]] && mkdir -p "$RUN" && exit 0
[[ $STATUS == elsewhere ]] && exit 0
[[ $STATUS == wait ]] || finish "$STATUS"
trap 'sleep 0.3; exit 75' USR1
echo ready >> "$CALLS"
for ((i = 0; i < 200; i++)); do sleep 0.05; done
"""


def await_word(path, word):
    end = time.monotonic() + 20
    while not (path.exists() and word in path.read_text()):
        assert time.monotonic() < end, f"no {word!r} in {path}"
        time.sleep(0.02)


@pytest.fixture
def job(tmp_path):
    """Starts the script; launchers write down how they were called and end with a status.

    With the status "wait" they end with 75, a while after they were told to by SIGUSR1.
    """
    tools, venv = tmp_path / "tools", tmp_path / "venv" / "bin"
    for folder in (tools, venv):
        folder.mkdir(parents=True)
    (venv / "activate").touch()
    for name in ("srun", "scontrol", "mpiexec"):
        path = tools / name
        path.write_text(STAND_IN.format(name=name))
        path.chmod(0o755)

    def start(status, restarts=0, more=(), mishaps=0, shell=(), array=()):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        (tmp_path / "runs" / "slurm-7" / "summary.json").unlink(missing_ok=True)
        with subprocess.Popen(
            ["bash", *shell, SCRIPT, "--epochs", "9", *more],
            env={
                "PATH": f"{tools}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "STATUS": str(status),
                "MISHAPS": str(mishaps),
                "RUN": str(tmp_path / "runs" / "slurm-7"),
                "SLURM_SUBMIT_DIR": str(tmp_path),
                "SLURM_JOB_ID": "7",
                "SLURM_RESTART_COUNT": str(restarts),
                "SLURM_NTASKS": "4",
                "SLURM_NTASKS_PER_NODE": "2",
                "ACIDMPI_VENV": str(tmp_path / "venv"),
                **dict(array),
            },
            stdout=subprocess.DEVNULL,
        ) as script:
            try:
                if status == "wait" and not shell:
                    await_word(calls, "ready")
                    script.send_signal(signal.SIGUSR1)
                script.wait(30)
            finally:
                script.kill()
        return script.returncode, calls.read_text()

    return start


def test_a_job_that_was_told_to_leave_is_queued_again_and_goes_on(job, tmp_path):
    status, calls = job(75)
    assert status == 75
    assert "scontrol requeue 7" in calls
    assert "--resume" not in calls
    assert "--overwrite" not in calls
    made = tmp_path / "runs" / "slurm-7" / "checkpoints" / "set-000002"
    made.mkdir(parents=True)
    assert "--epochs 9 --overwrite" in job(75, restarts=1)[1]  # it is not complete
    (made / "manifest.json").touch()
    status, calls = job(0, restarts=2)
    assert status == 0
    assert "--epochs 9 --resume" in calls
    assert "scontrol" not in calls


def test_one_task_of_an_array_is_queued_again_alone(job):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert "scontrol requeue 7_3\n" in job(75, array=array)[1]


@pytest.mark.parametrize("named", [["--output", "my runs/a"], ["--output=my runs/a"]])
def test_a_folder_that_the_options_name_is_gone_on_with_too(job, tmp_path, named):
    made = tmp_path / "my runs" / "a" / "checkpoints" / "set-000002"
    made.mkdir(parents=True)
    (made / "manifest.json").touch()
    assert "--resume" not in job(0, more=named)[1], "that run is of another job"
    calls = job(0, restarts=1, more=named)[1]
    assert "--resume" in calls
    assert "--overwrite" not in calls


def test_a_run_that_goes_on_from_another_one_goes_on_from_itself_later(job, tmp_path):
    made = tmp_path / "runs" / "slurm-7" / "checkpoints" / "set-000002"
    made.mkdir(parents=True)
    (made / "manifest.json").touch()
    calls = job(0, restarts=1, more=["--resume", "runs/old"])[1]
    assert calls.endswith("--resume runs/old --resume\n")


def test_a_finished_run_is_not_overwritten(job, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "summary.json").write_text('"stop_reason": "finished",')
    assert "--overwrite" not in job(0, restarts=1, more=["--output", "mine"])[1]


def test_a_job_that_failed_is_not_queued_again(job):
    status, calls = job(1)
    assert status == 1
    assert "scontrol" not in calls


@pytest.mark.parametrize("more", [[], ["--fault-tolerant"]])
def test_the_signal_is_handed_on_and_the_checkpoint_is_waited_for(job, more):
    status, calls = job("wait", more=more)
    assert status == 75
    assert "scontrol requeue 7" in calls


# Runs the script with a trap that sends the signal just before the launcher's process
# number is kept.
SIGNALLED_EARLY = """
early() {{
    if [[ $1 == "ranks=\\$!" ]]; then
        trap - DEBUG
        {wait}
        kill -USR1 $$
    fi
}}
trap 'early "$BASH_COMMAND"' DEBUG
. "$0" "$@"
"""


@pytest.mark.parametrize(
    "wait",
    ["until grep -q ready $CALLS; do sleep 0.02; done", ":"],
    ids=["ready", "at-once"],
)
def test_a_signal_is_not_lost_while_the_launcher_is_started(job, wait):
    began = time.monotonic()
    status, calls = job("wait", shell=["-T", "-c", SIGNALLED_EARLY.format(wait=wait)])
    assert status == 75
    assert time.monotonic() - began < 9, "the launcher was not told"
    assert "scontrol requeue 7" in calls


def test_ranks_that_survive_deaths_are_started_by_the_launcher_that_tells_of_them(job):
    plain, mortal = job(0)[1], job(0, more=["--fault-tolerant"])[1]
    assert plain.startswith("srun --mpi=pmix")
    assert "--kill-on-bad-exit=0" in plain
    assert mortal.startswith("mpiexec --with-ft ulfm -n 4 --map-by ppr:2:node:PE=1")
    assert "--epochs 9 --fault-tolerant" in mortal


def test_a_configuration_file_may_ask_for_that_launcher_too(job, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('task = "digits"\nfault_tolerant = true\n')
    for more in (["--config", file], [f"--config={file}"]):
        assert "\nmpiexec --with-ft ulfm" in f"\n{job(0, more=more)[1]}"
    assert "mpiexec" not in job(0, more=["--config", file, "--no-fault-tolerant"])[1]
    file.write_text("fault-tolerant = true\n")
    assert "mpiexec" in job(0, more=["--config", file])[1]
    file.write_text("fault_tolerant = false\n")
    assert "mpiexec" not in job(0, more=["--config", file])[1]


@pytest.mark.parametrize("mishap", [76, 137])
def test_ranks_that_mpi_could_not_start_are_started_again(job, tmp_path, mishap):
    status, calls = job(mishap, more=["--fault-tolerant"], mishaps=2)
    assert status == 0
    first, second, third = calls.splitlines()
    assert first.startswith("mpiexec")
    assert "--overwrite" not in first, "it would take away what somebody has left there"
    assert "--epochs 9 --fault-tolerant --overwrite" in second
    assert second == third
    (tmp_path / "runs" / "slurm-7" / "checkpoints" / "set-1").mkdir(parents=True)
    (tmp_path / "runs/slurm-7/checkpoints/set-1/manifest.json").touch()
    assert "--epochs 9 --resume" in job(76, mishaps=1)[1].splitlines()[1]


def test_ranks_of_which_none_is_left_are_started_again(job):
    """Their launcher, which survives deaths, ends with status 0 all the same."""
    status, calls = job("lost", more=["--fault-tolerant"], mishaps=1)
    assert (status, calls.count("mpiexec")) == (0, 2)
    status, calls = job("lost", more=["--fault-tolerant"])
    assert (status, calls.count("mpiexec")) == (76, 5)
    status, calls = job("lost")
    assert (status, calls.count("srun")) == (0, 1)


def test_a_run_in_another_folder_is_not_made_again(job):
    status, calls = job("elsewhere", more=["--fault-tolerant", "--output", "other"])
    assert (status, calls.count("mpiexec")) == (0, 1)


def test_a_start_that_never_succeeds_is_given_up(job):
    status, calls = job(76, mishaps=99)
    assert status == 76
    assert len(calls.splitlines()) == 5
    assert "scontrol" not in calls


def test_a_launcher_that_is_killed_later_is_not_started_again(job, tmp_path):
    (tmp_path / "runs" / "slurm-7").mkdir(parents=True)
    status, calls = job(137, more=["--fault-tolerant"], mishaps=2)
    assert status == 137
    assert len(calls.splitlines()) == 1


def test_slurm_is_asked_for_the_signal_that_the_command_listens_to():
    text = SCRIPT.read_text()
    assert "#SBATCH --signal=B:USR1@" in text
    assert "#SBATCH --requeue" in text
