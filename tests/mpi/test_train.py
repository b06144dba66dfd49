"""The command on real ranks: what it leaves behind, and how it ends when it must."""

import os
import signal

import pytest
from mpi4py import MPI
from support import train_command
from support.train_command import finished, only_rank_0_says, records_of, summary_of

from acidmpi.config.files import read_values
from acidmpi.config.train import TrainConfig
from acidmpi.telemetry.summary import FIELDS

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
LAST = COMM.size - 1
SHORT = ["--epochs", "6", "--deadline-seconds", "60"]
QUADRATIC = ["--task", "quadratic", "--epochs", "1", "--deadline-seconds", "60"]
ENDLESS = [*SHORT, "--epochs", "1e6"]

several = pytest.mark.skipif(COMM.size == 1, reason="needs another rank")


@pytest.mark.parametrize("method", ["a2cid2", "async"])
def test_a_run_finishes_and_its_summary_is_complete(run, folder, method):
    output = finished(run(*SHORT, "--method", method, "--output", folder))
    assert "test accuracy" in output
    summary = summary_of(folder)
    assert list(summary) == list(FIELDS)
    assert (summary["schema"], summary["size"]) == (1, COMM.size)
    assert (summary["stop_reason"], summary["dead_ranks"]) == ("finished", [])
    assert summary["test_accuracy"] > 0.85
    assert sum(summary["gradients"]) >= 6 * 1437 / 16
    assert 0 < summary["train_loss"] < 1
    assert summary["mean_drift"] < 1e-5
    for name in ("device", "exchanges", "control_messages", "bytes_sent"):
        assert len(summary[name]) == COMM.size
    if method == "async":
        assert (summary["eta"], summary["alpha_tilde"]) == (0.0, 0.5)
    if COMM.size > 1:
        assert summary["chi_1"] > 0
        assert min(summary["exchanges"]) > 0
        assert min(summary["bytes_sent"]) > 0


def test_metrics_tell_of_every_event(run, folder):
    finished(run(*SHORT, "--output", folder, "--evaluate-every", "2"))
    summary = summary_of(folder)
    for rank in range(COMM.size):
        records = records_of(folder, rank)
        kinds = [record["kind"] for record in records]
        assert kinds.count("gradient") == summary["gradients"][rank]
        assert kinds.count("exchange") == summary["exchanges"][rank]
        assert all(record["schema"] == 1 for record in records)
        assert {r["peer"] for r in records if r["kind"] == "exchange"} <= (
            set(range(COMM.size)) - {rank}
        )
    scores = [r for r in records_of(folder, 0) if r["kind"] == "evaluation"]
    assert scores[-1]["test_accuracy"] == summary["test_accuracy"]


def test_averages_are_evaluated_on_the_way(run, folder):
    every = ["--evaluate-every", "4", "--epochs", "40"]
    output = finished(run(*SHORT, *every, "--output", folder))
    assert "average: test loss" in output
    scores = [r for r in records_of(folder, 0) if r["kind"] == "evaluation"]
    assert len(scores) >= 3
    assert scores[0]["test_loss"] > scores[-1]["test_loss"]
    for rank in range(1, COMM.size):
        kinds = {record["kind"] for record in records_of(folder, rank)}
        assert kinds == {"gradient", "exchange", "heartbeat"} & kinds


def test_the_quadratic_runs_through_gossip(run, folder):
    finished(run(*QUADRATIC, "--output", folder))
    summary = summary_of(folder)
    assert summary["model"] == "quadratic"
    assert summary["test_accuracy"] is None
    assert summary["test_loss"] < 100


def test_a_configuration_file_gives_the_options(run, folder):
    path = folder / "run.toml"
    if COMM.rank == 0:
        path.write_text('topology = "complete"\ncomm-rate = 2\nmax_lag = "none"\n')
    COMM.barrier()
    place = folder / "run"
    finished(run(*QUADRATIC, "--config", path, "--comm-rate", 0.5, "--output", place))
    summary = summary_of(place)
    assert (summary["topology"], summary["comm_rate"]) == ("complete", 0.5)
    config = TrainConfig(**read_values(place / "config.toml", TrainConfig))
    assert (config.topology, config.max_lag, config.lr) == ("complete", None, 0.02)


@pytest.mark.parametrize("task", [SHORT, QUADRATIC], ids=["digits", "quadratic"])
def test_logical_time_repeats_bit_for_bit(run, folder, task):
    def figures(name, *more):
        place = folder / name
        logical = ["--pairing", "schedule", "--progress", "inline"]
        finished(run(*task, *logical, "--output", place, *more))
        summary = summary_of(place)
        losses = [r["loss"] for r in records_of(place, LAST) if r["kind"] == "gradient"]
        names = ("test_loss", "train_loss", "consensus_distance", "gradients")
        return losses, [summary[name] for name in names]

    first = figures("first")
    assert figures("again") == first
    assert figures("other", "--seed", "1") != first


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--comm-rat", "1"], 2, "did you mean '--comm-rate'?"),
        (["--config", "/nowhere/run.toml"], 2, "/nowhere/run.toml"),
        (["--topology", "moebius"], 1, "moebius"),
        (["--topology", "/nowhere/edges.txt"], 1, "/nowhere/edges.txt"),
        (["--task", "cifar10"], 1, "needs `data_dir`"),
        (["--task", "cifar10", "--data-dir", "/nowhere"], 1, "/nowhere"),
        (["--output", "/dev/null/run"], 1, "/dev/null/run cannot be written"),
        (["--lr", "1e18"], 1, "not finite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_told_once_and_ends_all(run, folder, arguments, status, text):
    ends = run(*SHORT, "--output", folder / "run", *arguments)
    only_rank_0_says(ends, status, text)


@pytest.mark.skipif(COMM.size & (COMM.size - 1) == 0, reason="fits a hypercube")
def test_a_topology_that_does_not_fit_is_refused(run, folder):
    ends = run(*SHORT, "--topology", "hypercube", "--output", folder)
    only_rank_0_says(ends, 1, "hypercube", str(COMM.size))


def test_an_unknown_key_is_told_once(run, folder):
    path = folder / "run.toml"
    if COMM.rank == 0:
        path.write_text("comm_rat = 1\n")
    COMM.barrier()
    only_rank_0_says(run("--config", path), 2, "did you mean 'comm_rate'?")


def test_a_truncated_data_file_is_told_once(run, folder):
    if COMM.rank == 0:
        for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
            (folder / name).write_bytes(b"\0" * 100)
    COMM.barrier()
    ends = run("--task", "cifar10", "--data-dir", folder, "--output", folder / "run")
    only_rank_0_says(ends, 1, "data_batch_1.bin", "100 bytes")


def test_an_earlier_run_is_kept(run, folder):
    finished(run(*QUADRATIC, "--output", folder))
    only_rank_0_says(run(*QUADRATIC, "--output", folder), 1, "earlier run")
    finished(run(*QUADRATIC, "--output", folder, "--overwrite"))


@several
def test_a_mistake_of_one_rank_is_told_by_rank_0(run, folder):
    own = ["--method", "asinc"] if COMM.rank == LAST else []
    ends = run(*SHORT, "--output", folder, *own)
    only_rank_0_says(ends, 2, f"rank {LAST} failed", "did you mean 'async'?")


@several
def test_data_that_one_rank_lacks_end_all(run, folder):
    own = ["--data-dir", f"/nowhere/{COMM.rank}"]
    ends = run("--task", "cifar10", *own, "--output", folder)
    only_rank_0_says(ends, 1, "/nowhere/")


@several
def test_ranks_that_disagree_are_told_who_differs(run, folder):
    rate = 0.5 if COMM.rank == LAST else 0.1
    ends = run(*SHORT, "--output", folder, "--lr", rate)
    common = COMM.size > 2
    text = f"rank {LAST} has lr = 0.5, others 0.1" if common else "lr = 0.5"
    only_rank_0_says(ends, 2, text)


def spoil(monkeypatch, change):
    """Let `change` make the loss of the last rank from its tenth batch on."""
    train_command.spoil(monkeypatch, COMM, change)


def test_nan_on_one_rank_ends_all(run, folder, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("nan"))
    ends = run(*ENDLESS, "--output", folder)
    only_rank_0_says(ends, 1, "not finite", f"rank {LAST}")
    summary = summary_of(folder)
    assert list(summary) == list(FIELDS)
    assert summary["stop_reason"] == "failed"


def test_nan_on_one_rank_can_be_left_out(run, folder, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("nan"))
    finished(run(*SHORT, "--nonfinite", "skip", "--output", folder))
    losses = [r["loss"] for r in records_of(folder, LAST) if r["kind"] == "gradient"]
    assert None not in losses[:10]
    assert losses[10:] == [None] * len(losses[10:])
    assert summary_of(folder)["test_loss"] is not None


def test_an_exception_on_one_rank_ends_all(run, folder, monkeypatch):
    spoil(monkeypatch, lambda loss: loss / (1 // 0))
    ends = run(*ENDLESS, "--output", folder)
    assert [end[0] for end in ends] == [1] * COMM.size
    errors = "".join(end[2] for end in ends)
    assert errors.count("Traceback") == 1
    assert f"acidmpi: rank {LAST} on " in ends[LAST][2]
    told = [line for line in errors.splitlines() if line.startswith("acidmpi: error")]
    assert len(told) == 1
    assert "ZeroDivisionError" in ends[0][2]
    assert summary_of(folder)["stop_reason"] == "failed"


def test_a_signal_to_one_rank_ends_all_with_a_summary(run, folder, monkeypatch):
    signals = [signal.SIGINT]  # one only: the second would end the process

    def interrupt(loss):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return loss

    spoil(monkeypatch, interrupt)
    ends = run(*ENDLESS, "--output", folder)
    only_rank_0_says(ends, 130, "interrupted")
    summary = summary_of(folder)
    assert summary["stop_reason"] == "interrupted"
    assert all(isinstance(count, int) for count in summary["gradients"])
