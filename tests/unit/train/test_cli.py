"""The command on one rank: statuses, one message each, and help without MPI."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from mpi4py import MPI

from acidmpi.config.files import read_values
from acidmpi.config.train import TrainConfig
from acidmpi.errors import (
    ConfigError,
    DataError,
    DisagreementError,
    Interrupted,
    PeerFailed,
    Preempted,
    RemoteError,
)
from acidmpi.tasks.quadratic import Quadratic
from acidmpi.telemetry.summary import FIELDS
from acidmpi.train import cli, session
from acidmpi.train.cli import exit_status, main, tell

QUADRATIC = ["--task", "quadratic", "--epochs", "0.2"]


def run(*arguments):
    return main([str(argument) for argument in arguments], MPI.COMM_SELF)


def message(capsys):
    """The one line on standard error."""
    error = capsys.readouterr().err
    assert error.startswith("acidmpi: error: ")
    assert error.count("\n") == 1
    return error


def python(program, *arguments, environment=None):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


HELP_WITHOUT_MPI_AND_TORCH = """
import sys
for name in ("mpi4py", "torch", "numpy", "numba", "rich"):
    sys.modules[name] = None
from acidmpi.train.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_needs_neither_mpi_nor_torch_nor_numpy(flag):
    done = python(HELP_WITHOUT_MPI_AND_TORCH, flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert "acidmpi" in done.stdout


def test_help_is_fast():
    best = float("inf")
    for _ in range(3):
        start = time.monotonic()
        python("from acidmpi.train.cli import main; main(['--help'])")
        best = min(best, time.monotonic() - start)
    assert best < 2.0  # a tenth of that on a machine with nothing else to do


def test_help_tells_the_exit_statuses_and_is_told_once(capsys, monkeypatch):
    assert main(["--help"]) == 0
    assert "0 finished, 1 failed, 2 wrong usage, 130 interr" in capsys.readouterr().out
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--comm-rat", "1"], "did you mean '--comm-rate'?"),
        (["--lr", "fast"], "--lr must be a number"),
        (["--compression", "topk"], "--compression is for --method allreduce"),
        (["--config", "/nowhere/run.toml"], "/nowhere/run.toml"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments, text):
    assert run(*arguments) == cli.USAGE
    assert text in message(capsys)


def test_an_unknown_key_names_the_nearest(capsys, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("comm_rat = 2\n")
    assert run("--config", path) == cli.USAGE
    assert "did you mean 'comm_rate'?" in message(capsys)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--task", "cifar10"], "needs `data_dir`"),
        (["--task", "mnist"], "needs `data_dir`"),
        (["--method", "allreduce", "--compression", "topkk"], "got 'topkk'"),
        (["--method", "allreduce", "--density", "0.1"], "got density"),
        (["--method=allreduce", "--compression=topk", "--bits=3"], "got bits"),
        (["--task", "cifar10", "--data-dir", "/nowhere"], "/nowhere"),
        (["--model", "transformer"], "unknown model 'transformer'"),
        (["--task", "quadratic", "--model", "mlp"], "has no model"),
        (["--task", "digits", "--data-dir", "/nope"], "digits has no data_dir"),
        (["--subset", "5000"], "1437"),
        (["--epochs", "1e18"], "--epochs must give at most"),
        (["--task", "quadratic", "--topology", "moebius"], "moebius"),
    ],
)
def test_what_cannot_start_is_one_line_and_status_1(
    capsys, tmp_path, monkeypatch, arguments, text
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == cli.FAILED
    assert text in message(capsys)


def test_a_folder_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run(*QUADRATIC, "--output", tmp_path / "file" / "run") == cli.FAILED
    assert "--output" in message(capsys)


def test_a_run_leaves_its_folder_complete(capsys, tmp_path):
    assert run(*QUADRATIC, "--output", tmp_path, "--max-lag", "none") == cli.FINISHED
    said = capsys.readouterr()
    assert said.err == ""
    assert "test loss" in said.out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.toml", "summary.json", "metrics-0.jsonl"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stop_reason"] == "finished"
    assert summary["gradients"] == [200]
    config = TrainConfig(**read_values(tmp_path / "config.toml", TrainConfig))
    assert config.lr == 0.02
    assert config.max_lag is None


def test_the_written_configuration_starts_the_same_run(capsys, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(*QUADRATIC, "--output", first, "--momentum", 0.5) == cli.FINISHED
    again = ["--config", first / "config.toml"]
    assert run(*again) == cli.FAILED
    assert "earlier run" in capsys.readouterr().err
    assert run(*again, "--output", second) == cli.FINISHED
    ends = [json.loads((p / "summary.json").read_text()) for p in (first, second)]
    assert ends[0]["test_loss"] == ends[1]["test_loss"]


@pytest.mark.parametrize("method", ["allreduce", "localsgd"])
def test_a_run_in_step_leaves_its_folder_complete(capsys, tmp_path, method):
    assert run(*QUADRATIC, "--method", method, "--output", tmp_path) == cli.FINISHED
    assert "exchange" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == list(FIELDS)
    assert (summary["stop_reason"], summary["gradients"]) == ("finished", [200])
    assert (summary["pairing"], summary["topology"], summary["chi_1"]) == (None,) * 3
    again = ["--config", tmp_path / "config.toml", "--output", tmp_path / "again"]
    assert run(*again) == cli.FINISHED


def test_an_unforeseen_error_shows_its_traceback_once(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "make_trainer", lambda *_: 1 / 0)
    assert run(*QUADRATIC, "--output", tmp_path) == cli.FAILED
    error = capsys.readouterr().err
    assert error.startswith("acidmpi: rank 0 on ")
    assert error.count("Traceback") == 1
    assert error.splitlines()[-1] == (
        "acidmpi: error: ZeroDivisionError: division by zero"
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stop_reason"] == "failed"


def test_a_signal_writes_a_partial_summary_and_ends_with_130(
    capsys, tmp_path, monkeypatch
):
    gradient, calls = Quadratic.gradient, iter(range(10**9))

    def interrupted(self, x, generator):
        if next(calls) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return gradient(self, x, generator)

    monkeypatch.setattr(Quadratic, "gradient", interrupted)
    status = run("--task", "quadratic", "--epochs", "1e6", "--output", tmp_path)
    assert status == 130
    assert "interrupted" in message(capsys)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stop_reason"] == "interrupted"
    assert summary["test_loss"] is None


@pytest.mark.parametrize("stage", ["load_task", "make_trainer"])
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "preempted")],
)
def test_a_signal_before_training_has_a_status_of_its_own(
    capsys, tmp_path, monkeypatch, stage, number, status, word
):
    def interrupted(*arguments, **options):
        os.kill(os.getpid(), number)
        time.sleep(0.2)
        return original(*arguments, **options)

    original = getattr(session, stage)
    monkeypatch.setattr(session, stage, interrupted)
    assert run(*QUADRATIC, "--output", tmp_path / "run") == status
    assert word in message(capsys)


class FakeCompany:
    """Two ranks seen from one of them."""

    size = 2

    @property
    def leads(self):
        return self.rank == 0

    def __init__(self, rank, orderly):
        self.rank, self.orderly, self.aborted = rank, orderly, []
        self.clean = orderly
        self.met = 0

    def meet(self, seconds):
        self.met += 1

    def abort(self, status):
        self.aborted.append(status)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_others_wait_for_ends_the_job(capsys, monkeypatch, rank):
    monkeypatch.setattr(cli, "BEFORE_ABORT_SECONDS", 0.0)
    company = FakeCompany(rank, orderly=False)
    status = cli._Command(None, None)._end(PeerFailed(1, "an answer"), company, 1)
    assert company.aborted == [status] == [1]
    assert "rank 1 failed" in message(capsys)


def test_what_cannot_end_is_aborted_once_all_have_told(capsys):
    company = FakeCompany(1, orderly=True)
    company.clean = False
    assert cli._Command(None, None)._end(RemoteError(0, "no file"), company, 1) == 1
    assert (company.met, company.aborted) == (1, [1])
    assert capsys.readouterr().err == ""


def test_an_orderly_end_does_not_abort(capsys):
    company = FakeCompany(1, orderly=True)
    assert cli._Command(None, None)._end(DataError("no file"), company, 1) == 1
    assert company.aborted == []
    assert capsys.readouterr().err == ""


def test_statuses():
    assert exit_status(Interrupted("x"), 1) == 130
    assert exit_status(RemoteError(1, "interrupted by a signal"), 1) == 130
    assert exit_status(Preempted("x"), 1) == 75
    assert exit_status(RemoteError(1, "preempted by a signal"), 1) == 75
    assert exit_status(RemoteError(1, "x"), 1) == 1
    assert exit_status(DisagreementError("x"), 1) == 2
    assert exit_status(ConfigError("x"), 2) == 2


def test_only_rank_0_tells_an_error_that_all_know(capsys):
    tell(DataError("no file"), 1, alone=False)
    assert capsys.readouterr().err == ""
    tell(DataError("no file"), 0, alone=False)
    assert capsys.readouterr().err == "acidmpi: error: no file\n"
    tell(DataError("no file"), 3, alone=True)
    assert "rank 3 cannot go on: no file" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["a2cid2", "allreduce", "localsgd"])
def test_the_quadratic_never_imports_torch(tmp_path, method):
    program = """
import sys
sys.modules["torch"] = None
from acidmpi.train.cli import main
sys.exit(main(sys.argv[1:]))
"""
    done = python(program, *QUADRATIC, "--method", method, "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "torch" not in summary["versions"]


def test_a_run_that_diverges_ends_with_one_line(tmp_path):
    """And no warnings of NumPy, which every rank would repeat."""
    program = """
import sys
from acidmpi.train.cli import main
sys.exit(main(sys.argv[1:]))
"""
    diverging = [*QUADRATIC, "--lr", "1e18", "--momentum", "0.999"]
    done = python(program, *diverging, "--output", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.startswith("acidmpi: error: gradients must be finite")
    assert done.stderr.count("\n") == 1
