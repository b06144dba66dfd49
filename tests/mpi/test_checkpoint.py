"""Runs that are stopped and gone on with: the same to the last bit, or on other ranks."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from mpi4py import MPI
from support import train_command
from support.train_command import finished, only_rank_0_says, records_of, summary_of
from torch import nn

from acidmpi.checkpoint import keeper as keeper_module
from acidmpi.checkpoint.files import read_json, write_json
from acidmpi.checkpoint.keeper import Keeper
from acidmpi.checkpoint.sets import Sets, newest
from acidmpi.progress.limits import Limits
from acidmpi.tasks.classification import ClassificationTask
from acidmpi.train.cli import main
from acidmpi.worker.gossip import Gossip
from acidmpi.worker.keeping import Cutter, Keeping, count_of, regrouped
from acidmpi.worker.loop import CommunicationLoop

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
LAST = COMM.size - 1
LOGICAL = ["--pairing", "schedule", "--progress", "inline"]
# One set on the way and one at the end: of two on the way the second may come before the
# first is on a slow disk, and is left out with a warning then.
QUADRATIC = ["--task", "quadratic", "--epochs", "0.7", "--checkpoint-every", "0.4"]
DIGITS = ["--task", "digits", "--epochs", "0.7", "--checkpoint-every", "0.4"]
FIGURES = (
    *("test_loss", "train_loss", "consensus_distance"),
    *("gradients", "exchanges", "bytes_sent"),
)

several = pytest.mark.skipif(COMM.size == 1, reason="needs another rank")
few = pytest.mark.skipif(COMM.size > 3, reason="more ranks add time only")


def on_rank_0(action):
    COMM.barrier()
    if COMM.rank == 0:
        action()
    COMM.barrier()


def figures(place):
    summary = summary_of(place)
    records = records_of(place, LAST)
    losses = [r["loss"] for r in records if r["kind"] == "gradient"]
    met = [(r["gradients"], r["peer"]) for r in records if r["kind"] == "exchange"]
    return losses, met, [summary[name] for name in FIGURES]


@few
@pytest.mark.parametrize(
    "arguments",
    [
        [*QUADRATIC, *LOGICAL],
        [*DIGITS, *LOGICAL],
        [*QUADRATIC, "--method", "allreduce", "--compression", "powersgd"],
        [*QUADRATIC, "--method", "gossip"],
        [*QUADRATIC, "--method", "localsgd"],
    ],
    ids=["vector", "model", "compressed", "gossip", "localsgd"],
)
def test_going_on_is_the_same_as_never_having_stopped(run, folder, arguments):
    whole, again = folder / "whole", folder / "again"
    finished(run(*arguments, "--output", whole))
    numbers = Sets(whole / "checkpoints").numbers()
    on_rank_0(lambda: shutil.copytree(whole, again))
    on_rank_0(lambda: shutil.rmtree(Sets(again / "checkpoints").folder(numbers[-1])))
    finished(run(*arguments, "--output", again, "--resume"))
    assert figures(again) == figures(whole)
    assert len(numbers) == 2


@few
@pytest.mark.parametrize("way", [LOGICAL, ["--method", "allreduce"]])
def test_the_planned_end_is_kept_and_the_run_can_be_made_longer(run, folder, way):
    arguments = [*QUADRATIC, *way, "--output", folder]
    finished(run(*arguments))
    done, loss = sum(summary_of(folder)["gradients"]), summary_of(folder)["test_loss"]
    last = next(iter(newest(Sets(folder / "checkpoints"), print)))
    assert last.total_gradients == done
    finished(run(*arguments, "--resume"))
    assert sum(summary_of(folder)["gradients"]) == done
    assert summary_of(folder)["test_loss"] == pytest.approx(loss)
    longer = ["--epochs", "1.4", "--checkpoint-every", "9"]
    finished(run(*arguments, *longer, "--resume"))
    assert sum(summary_of(folder)["gradients"]) >= 1400


@several
@pytest.mark.parametrize("method", ["a2cid2", "allreduce"])
def test_other_ranks_go_on_with_the_total(run, folder, capsys, method):
    place = folder / "run"
    finished(run(*QUADRATIC, "--method", method, "--output", place))
    fewer = COMM.Split(COMM.rank == LAST)
    if COMM.rank != LAST:
        options = ["--method", method, "--output", str(place), "--resume"]
        more = ["--task", "quadratic", "--epochs", "1.4", *options]
        assert main(more, fewer) == 0
        assert capsys.readouterr().err == ""
    fewer.Free()
    COMM.barrier()
    gradients = summary_of(place)["gradients"]
    assert len(gradients) == LAST
    # Ranks that make a gradient in microseconds go on until they hear of the end.
    assert 1400 <= sum(gradients) <= 1400 + 64 * COMM.size
    assert max(gradients) < 1.6 * 1400 / LAST + 50


@several
@few
@pytest.mark.parametrize(
    ("way", "change"),
    [
        (["--pairing", "schedule", "--topology", "star"], []),
        (["--pairing", "schedule"], ["--seed", "1"]),
        ([], ["--seed", "1"]),
    ],
    ids=["same", "schedule", "handshake"],
)
def test_nobody_waits_for_exchanges_of_long_ago(run, folder, way, change):
    """Where ranks meet by a clock: gradients that were made owe nothing any more."""
    arguments = [*QUADRATIC[:2], *way, "--deadline-seconds", "10"]
    finished(run(*arguments, *QUADRATIC[2:], "--output", folder / "run"))
    again = ["--epochs", "1.4", "--resume", folder / "run", "--output", folder / "new"]
    finished(run(*arguments, *change, *again))
    kinds = [record["kind"] for record in records_of(folder / "new", COMM.rank)]
    made = [at for at, kind in enumerate(kinds) if kind == "gradient"]
    assert len(made) > 1
    assert kinds[: made[1]].count("exchange") < 64


def make_normalised(self):
    """A model with statistics, and with a count that is a single number."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


@several
@few
@pytest.mark.parametrize("method", ["a2cid2", "allreduce", "localsgd", "gossip"])
def test_a_model_with_statistics_goes_on_on_other_ranks(
    run, folder, capsys, monkeypatch, method
):
    monkeypatch.setattr(ClassificationTask, "make_model", make_normalised)
    options = ["--method", method, "--output", str(folder)]
    finished(run(*DIGITS, *options))
    fewer = COMM.Split(COMM.rank == LAST)
    if COMM.rank != LAST:
        assert main([*DIGITS, "--epochs", "1.4", *options, "--resume"], fewer) == 0
        assert "error" not in capsys.readouterr().err
    fewer.Free()
    COMM.barrier()
    assert sum(summary_of(folder)["gradients"]) >= 1.4 * 1437 / 16


@few
def test_a_damaged_set_is_passed_over_with_a_word(run, folder):
    finished(run(*QUADRATIC, *LOGICAL, "--output", folder))
    sets = Sets(folder / "checkpoints")
    numbers = sets.numbers()
    path = sets.folder(numbers[-1]) / f"rank-{LAST}.safetensors"
    on_rank_0(lambda: path.write_bytes(path.read_bytes()[:-1]))
    ends = run(*QUADRATIC, *LOGICAL, "--output", folder, "--resume")
    assert [end[0] for end in ends] == [0] * COMM.size
    first, second = ends[0][2].splitlines()
    assert f"rank-{LAST}.safetensors must have" in first
    assert f"going on from {sets.folder(numbers[0])}" in second


@few
def test_nothing_is_said_of_sets_older_than_the_one_that_is_taken(run, folder):
    finished(run(*QUADRATIC, *LOGICAL, "--output", folder))
    sets = Sets(folder / "checkpoints")
    older, _ = sets.numbers()
    on_rank_0(lambda: (sets.folder(older) / "manifest.json").unlink())
    finished(run(*QUADRATIC, *LOGICAL, "--output", folder, "--resume"))


def test_a_signal_to_one_rank_keeps_all_and_has_a_status(run, folder, monkeypatch):
    signals = [signal.SIGUSR1]

    def interrupt(loss):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return loss

    arguments = ["--task", "digits", "--deadline-seconds", "60", "--output", folder]
    with monkeypatch.context() as spoilt:
        train_command.spoil(spoilt, COMM, interrupt)
        only_rank_0_says(run(*arguments, "--epochs", "1e6"), 75, "--resume")
    assert summary_of(folder)["stop_reason"] == "interrupted"
    done = sum(summary_of(folder)["gradients"])
    finished(run(*arguments, "--epochs", f"{(done + 9) * 16 / 1437}", "--resume"))
    # Ranks hear late that the goal is reached: by time, so by more gradients where they
    # share cores. What this is to find is a total that begins anew, or never ends.
    assert done + 9 <= sum(summary_of(folder)["gradients"]) < done + 9 + 16 * COMM.size


@few
@pytest.mark.parametrize("way", [["localsgd", "--local-steps", "1"], ["gossip"]])
def test_a_signal_changes_nothing_for_who_goes_on(run, folder, monkeypatch, way):
    signals = [signal.SIGUSR1]

    def interrupt(loss):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return loss

    whole, again = folder / "whole", folder / "again"
    arguments = ["--task", "digits", "--epochs", "2", "--method", *way, "--output"]
    finished(run(*arguments, whole))
    with monkeypatch.context() as spoilt:
        train_command.spoil(spoilt, COMM, interrupt)
        only_rank_0_says(run(*arguments, again), 75, "--resume")
    finished(run(*arguments, again, "--resume"))
    assert figures(again) == figures(whole)


@pytest.mark.parametrize("way", [[], ["--method", "allreduce"]], ids=["ring", "all"])
def test_ctrl_c_keeps_no_last_set(run, folder, monkeypatch, way):
    signals = [signal.SIGINT]

    def interrupt(loss):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return loss

    options = ["--task", "digits", "--output", folder, "--deadline-seconds", "60", *way]
    train_command.spoil(monkeypatch, COMM, interrupt)
    ends = run(*options, "--epochs", "1e6", "--checkpoint-every", "1e5")
    only_rank_0_says(ends, 130, "interrupted")
    assert Sets(folder / "checkpoints").numbers() == []


@few
def test_what_cannot_be_gone_on_from(run, folder):
    # In logical time a set is complete before the end, however quick the machine.
    finished(run(*QUADRATIC, *LOGICAL, "--output", folder / "run"))

    def refuses(text, *change, output="run"):
        ends = run(*QUADRATIC[:4], "--output", folder / output, *change)
        only_rank_0_says(ends, 1, text)

    nowhere = "found none in /nowhere/run/checkpoints"
    refuses(nowhere, "--resume", "/nowhere/run", output="new")
    refuses("a2cid2 in", "--resume", "--method", "async")
    refuses("the same --task", "--resume", "--task", "digits")
    sets = Sets(folder / "run" / "checkpoints")
    path = sets.folder(sets.numbers()[-1]) / "manifest.json"
    on_rank_0(lambda: write_json(path, read_json(path) | {"schema": 2}))
    refuses("schema 1 or less, got 2", "--resume")
    assert not (folder / "new").exists()


@few
def test_a_run_that_names_its_own_folder_keeps_what_it_goes_on_from(run, folder):
    arguments = [*QUADRATIC[:2], *LOGICAL, "--output", folder]
    finished(run(*arguments, *QUADRATIC[2:]))
    numbers = Sets(folder / "checkpoints").numbers()
    finished(run(*arguments, "--epochs", "1", "--resume", folder, "--overwrite"))
    assert Sets(folder / "checkpoints").numbers() == numbers
    assert records_of(folder, LAST)[0]["gradients"] <= 1


UPDATES = 120


def update_of(rank, number):
    return np.random.default_rng([rank, number]).standard_normal(50)


def sums_of_sets(folder, monkeypatch, **more):
    """½Σ(x + x̃) of each set, less what the gradients in it have added."""
    monkeypatch.setattr(keeper_module, "KEPT_SETS", 1000)
    sets = Sets(folder)
    keeper = Keeper(
        sets,
        rank=COMM.rank,
        size=COMM.size,
        session="test",
        first=1,
        every=4 * COMM.size,
        tell=lambda text: None,
    )
    options = {"comm_rate": 6.0, "unit_seconds": 3e-3, "deadline_seconds": 30} | more
    keeping = Keeping(keeper)
    with Gossip(
        np.zeros(50), comm=COMM, topology="complete", keeping=keeping, **options
    ) as gossip:
        for number in range(UPDATES):
            gossip.apply(update_of(COMM.rank, number))
            time.sleep(3e-3)
    keeper.close()
    COMM.barrier()
    return [_excess(sets, manifest) for manifest in newest(sets, lambda text: None)]


def _excess(sets, manifest):
    parts = [sets.read(manifest, rank) for rank in manifest.members]
    counts = [count_of(part) for part in parts]
    made = sum(update_of(r, k) for r, n in enumerate(counts) for k in range(n))
    mean = regrouped(parts, 1, 0)["state"]["x"][0] * len(parts)
    return float(np.abs(mean - made).max())


@several
def test_no_exchange_is_in_one_part_of_a_set_and_not_in_the_other(folder, monkeypatch):
    excess = sums_of_sets(folder, monkeypatch)
    assert len(excess) >= 3
    assert max(excess) < 1e-9


@several
def test_planted_fault_parts_are_taken_whatever_the_peer_has_promised(
    folder, monkeypatch
):
    monkeypatch.setattr(Cutter, "follow", lambda self, promised: None)
    # An exchange has to fall between two parts, which is likely in one run, not certain.
    tries = (max(sums_of_sets(folder / str(k), monkeypatch)) for k in range(8))
    assert any(COMM.bcast(excess) > 1e-6 for excess in tries)


IMPATIENT = {
    "fault": "rank=all at=message:1- do=delay:0~3e-3",
    "max_lag": None,
}


@pytest.mark.skipif(COMM.size != 3, reason="needs somebody to be busy with; adds time")
def test_nor_when_an_old_question_is_answered_after_a_part_was_taken(
    folder, monkeypatch
):
    monkeypatch.setattr(Limits, "patience_seconds", 0.0)
    excess = sums_of_sets(folder, monkeypatch, **IMPATIENT)
    assert len(excess) >= 3
    assert max(excess) < 1e-9


@pytest.mark.skipif(COMM.size != 3, reason="needs somebody to be busy with; adds time")
def test_planted_fault_an_old_question_holds_whatever_was_taken_since(
    folder, monkeypatch
):
    monkeypatch.setattr(Limits, "patience_seconds", 0.0)
    monkeypatch.setattr(CommunicationLoop, "_is_outdated", lambda self, peer: False)
    tries = (
        max(sums_of_sets(folder / str(k), monkeypatch, **IMPATIENT)) for k in range(8)
    )
    assert any(COMM.bcast(excess) > 1e-6 for excess in tries)
