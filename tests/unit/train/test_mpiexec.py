"""The command as a user starts it: under mpiexec, with its output and its status."""

import json
import os
import signal

QUADRATIC = ["-m", "acidmpi.train", "--task", "quadratic", "--deadline-seconds", "60"]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_run_tells_its_result_once_and_in_plain_text(run_ranks, tmp_path):
    done = run_ranks(3, *QUADRATIC, "--epochs", "1", "--output", tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("test loss") == 1
    assert "\x1b" not in done.stdout
    assert "acidmpi" not in done.stderr
    assert len(summary_of(tmp_path)["gradients"]) == 3


def test_a_mistake_is_told_once_and_the_job_fails(run_ranks, tmp_path):
    done = run_ranks(3, *QUADRATIC, "--comm-rat", "1", "--output", tmp_path)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("acidmpi: error: ") == 1
    assert "did you mean '--comm-rate'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_told_once(run_ranks):
    done = run_ranks(3, "-m", "acidmpi.train", "--help")
    assert done.returncode == 0
    assert done.stdout.count("--comm-rate") == 1


def test_a_job_that_is_told_to_end_leaves_a_summary(run_ranks, tmp_path):
    """Even by a launcher that kills its ranks a quarter of a second later."""
    metrics = tmp_path / "metrics-0.jsonl"

    def end(pid):
        if metrics.exists() and metrics.stat().st_size:
            os.kill(pid, signal.SIGTERM)

    done = run_ranks(
        3, *QUADRATIC, "--epochs", "1e6", "--output", tmp_path, on_poll=end
    )
    assert done.returncode != 0
    summary = summary_of(tmp_path)
    assert summary["stop_reason"] == "interrupted"
    assert len(summary["gradients"]) == 3
