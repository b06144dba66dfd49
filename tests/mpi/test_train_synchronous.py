"""The command with all ranks in step: all-reduce, compressed too, local SGD, gossip."""

import os
import signal

import numpy as np
import pytest
import torch
from mpi4py import MPI
from support import cupy_like, train_command
from support.apart import Apart, pretend
from support.train_command import finished, only_rank_0_says, records_of, summary_of
from torch import nn

from acidmpi.arrays.torch import devices, model
from acidmpi.config.train import TrainConfig
from acidmpi.tasks.classification import ClassificationTask
from acidmpi.tasks.quadratic import Quadratic
from acidmpi.tasks.registry import task_defaults
from acidmpi.telemetry.summary import FIELDS
from acidmpi.topology.rounds import ONE_PEER, make_rounds
from acidmpi.train import gradients, session, synchronous_networks
from acidmpi.train.company import Company
from acidmpi.train.plan import make_plan, resolve

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
LAST = COMM.size - 1
SHORT = ["--epochs", "6", "--deadline-seconds", "60"]
ENDLESS = [*SHORT, "--epochs", "1e6"]
QUADRATIC = ["--task", "quadratic", "--deadline-seconds", "60"]
METHODS = ["allreduce", "localsgd"]
ALL = [*METHODS, "gossip"]


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer that a run makes."""
    made, make = [], session.make_trainer

    def keep(*arguments):
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(session, "make_trainer", keep)
    return made


def steps_for(total):
    return -(-total // COMM.size)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_reaches_what_the_asynchronous_ones_do(run, folder, method, trainers):
    every = ["--evaluate-every", "2"]
    output = finished(run(*SHORT, *every, "--method", method, "--output", folder))
    assert "average: test loss" in output
    summary, steps = summary_of(folder), steps_for(539)
    assert list(summary) == list(FIELDS)
    assert summary["test_accuracy"] > 0.85
    assert summary["gradients"] == [steps] * COMM.size
    assert summary["exchanges"] == [0] * COMM.size
    assert (summary["method"], summary["compression"]) == (method, "none")
    assert (summary["topology"], summary["chi_1"]) == (None, None)
    if COMM.size > 1:
        assert min(summary["bytes_sent"]) > 0
    same_everywhere(trainers[0])
    for rank in range(COMM.size):
        check_records(folder, rank, steps)


def same_everywhere(trainer):
    """All ranks hold the same model, to the last bit."""
    state = trainer._network.model.state_dict()
    mine = b"".join(tensor.numpy().tobytes() for tensor in state.values())
    assert len(set(COMM.allgather(mine))) == 1


def check_records(folder, rank, steps):
    records = records_of(folder, rank)
    kinds = [record["kind"] for record in records]
    assert kinds.count("gradient") == steps
    assert kinds.count("heartbeat") > 0
    assert kinds.count("evaluation") == (0 if rank else 3)
    beats = [record for record in records if record["kind"] == "heartbeat"]
    assert [b["total_gradients"] for b in beats] == [
        b["gradients"] * COMM.size for b in beats
    ]
    gradients = [record for record in records if record["kind"] == "gradient"]
    assert [g["time"] for g in gradients] == list(range(1, steps + 1))


@pytest.fixture
def normalised(monkeypatch):
    """A network with batch normalisation, in the place of the task's own."""

    def make_model(self):
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

    monkeypatch.setattr(ClassificationTask, "make_model", make_model)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_of_normalisation_are_averaged(
    run, folder, method, trainers, normalised
):
    every = ["--epochs", "1", "--evaluate-every", "0.4", "--progress", "inline"]
    finished(run(*SHORT, *every, "--method", method, "--output", folder))
    scores = [r for r in records_of(folder, 0) if r["kind"] == "evaluation"]
    assert len(scores) == 3
    assert all(score["test_loss"] < 2.0 for score in scores)  # 2.3 is ignorance
    same_everywhere(trainers[0])
    _, normalisation, _ = trainers[0]._network.model
    assert normalisation.running_var.mean() != 1.0


@pytest.mark.parametrize(
    "method",
    [["allreduce", "--compression", "topk"], ["localsgd"], ["gossip"]],
    ids=lambda method: method[0],
)
def test_what_ranks_exchange_on_a_device_gives_the_same(
    run, folder, monkeypatch, normalised, method
):
    """A stand-in, whose arrays NumPy cannot read; the model itself stays where it is."""
    every = ["--epochs", "1", "--evaluate-every", "0.4", "--checkpoint-every", "1"]
    options = [*SHORT, *every, "--method", *method]
    finished(run(*options, "--output", folder / "here"))
    buffers = gradients.float_buffers
    for module in (gradients, synchronous_networks):
        monkeypatch.setattr(
            module, "float_buffers", lambda m: [*map(cupy_like.ndarray, buffers(m))]
        )
    device = Apart(patience=1)
    pretend(monkeypatch, device)
    pretend(monkeypatch, device, model)
    monkeypatch.setattr(devices, "accelerator_for", lambda _: device)
    monkeypatch.setattr(devices, "shared_array", lambda t: cupy_like.ndarray(t.numpy()))
    monkeypatch.setattr(session.devices, "choose", lambda *_, **__: 0)
    monkeypatch.setattr(gradients, "_moved", lambda model, device: model)
    finished(run(*options, "--output", folder / "there"))
    here, there = (summary_of(folder / name) for name in ("here", "there"))
    assert (here["transport"], here["device"]) == ("host", ["cpu"] * COMM.size)
    assert (there["transport"], there["device"]) == ("staged", ["instant"] * COMM.size)
    for key in ("test_loss", "gradients", "exchanges", "bytes_sent"):
        assert here[key] == there[key]
    assert here["consensus_distance"] == pytest.approx(there["consensus_distance"])
    scores = [evaluations_of(folder / name) for name in ("here", "there")]
    assert len(scores[0]) == 3
    assert scores[0] == scores[1]
    at_once, late = (losses_of(folder / name) for name in ("here", "there"))
    assert late == [None, *at_once[:-1]]


def evaluations_of(folder):
    records = records_of(folder, 0)
    return [r["test_loss"] for r in records if r["kind"] == "evaluation"]


def losses_of(folder):
    """As this rank has recorded them with its gradients."""
    records = records_of(folder, COMM.rank)
    return [r["loss"] for r in records if r["kind"] == "gradient"]


@pytest.mark.parametrize(
    "options",
    [["topk", "--density", "0.05"], ["powersgd", "--matrix-rank", "2"]],
    ids=lambda options: options[0],
)
def test_compressed_gradients_train_as_well(run, folder, options, trainers):
    compression = ["--method", "allreduce", "--compression", *options]
    finished(run(*SHORT, "--epochs", "4", *compression, "--output", folder))
    summary = summary_of(folder)
    assert summary["compression"] == options[0]
    assert summary["test_accuracy"] > 0.85
    same_everywhere(trainers[0])


def recipe():
    config = TrainConfig(task="quadratic", epochs=0.2, momentum=0.5, weight_decay=0.1)
    config = resolve(config, task_defaults("quadratic"))
    return config, make_plan(config, 1000, COMM.size)


class Simulated:
    """One rank's SGD, in this process, written out once more."""

    def __init__(self, rank):
        self.task = Quadratic(rank=rank, size=COMM.size)
        self.x, self.momentum = self.task.initial(), np.float32(0)

    def gradient(self):
        return self.task.gradient(self.x, self.task.generator)

    def update(self, gradient, rate):
        self.momentum = 0.5 * self.momentum + gradient + 0.1 * self.x
        self.x = self.x - rate * self.momentum


def clipped(gradient, limit):
    return gradient * min(1, limit / np.linalg.norm(gradient))


def simulate(step):
    """The excess loss after the run, given what happens in one step."""
    _, plan = recipe()
    ranks = [Simulated(rank) for rank in range(COMM.size)]
    for number in range(steps := steps_for(200)):
        step(number, ranks, plan.rate(number * COMM.size / 200))
    assert steps == number + 1
    mean = np.mean([rank.x for rank in ranks], axis=0)
    return ranks[0].task.loss(mean)


EXACTLY = [*QUADRATIC, "--epochs", "0.2", "--momentum", "0.5", "--weight-decay", "0.1"]


def test_allreduce_steps_with_the_clipped_mean_of_all_gradients(run, folder):
    def step(number, ranks, rate):
        mean = np.mean([rank.gradient() for rank in ranks], axis=0)
        for rank in ranks:
            rank.update(clipped(mean, 20.0), rate)

    options = ["--method", "allreduce", "--clip", "20", "--nonfinite", "skip"]
    finished(run(*EXACTLY, *options, "--output", folder))
    assert summary_of(folder)["test_loss"] == pytest.approx(simulate(step), rel=1e-4)


def test_localsgd_averages_parameters_and_keeps_momentum_local(run, folder):
    def step(number, ranks, rate):
        for rank in ranks:
            rank.update(rank.gradient(), rate)
        if (number + 1) % 3 == 0:
            mean = np.mean([rank.x for rank in ranks], axis=0)
            for rank in ranks:
                rank.x = mean

    options = ["--method", "localsgd", "--local-steps", "3"]
    finished(run(*EXACTLY, *options, "--output", folder))
    summary = summary_of(folder)
    assert summary["test_loss"] == pytest.approx(simulate(step), rel=1e-4)
    assert (summary["consensus_distance"] > 0) == (COMM.size > 1)


def test_gossip_averages_with_one_peer_and_then_applies_the_gradient(run, folder):
    rounds = [make_rounds(ONE_PEER, rank, COMM.size).steps for rank in range(COMM.size)]

    def step(number, ranks, rate):
        gradients = [rank.gradient() for rank in ranks]
        before = [rank.x for rank in ranks]
        for rank, part in zip(ranks, rounds, strict=True):
            if part:
                (source,) = part[number % len(part)].sources
                rank.x = (rank.x + before[source]) / 2
        for rank, gradient in zip(ranks, gradients, strict=True):
            rank.update(gradient, rate)

    finished(run(*EXACTLY, "--method", "gossip", "--output", folder))
    summary = summary_of(folder)
    assert summary["test_loss"] == pytest.approx(simulate(step), rel=1e-4)
    assert (summary["consensus_distance"] > 0) == (COMM.size > 1)


@pytest.mark.parametrize("method", ALL)
def test_nan_on_one_rank_ends_all(run, folder, monkeypatch, method):
    train_command.spoil(monkeypatch, COMM, lambda loss: loss * float("nan"))
    ends = run(*ENDLESS, "--method", method, "--output", folder)
    only_rank_0_says(ends, 1, "not finite")
    assert summary_of(folder)["stop_reason"] == "failed"


@pytest.mark.parametrize("method", METHODS)
def test_nan_on_one_rank_can_be_left_out(run, folder, monkeypatch, method):
    spoilt = iter([True] * 3)

    def change(loss):
        return loss * float("nan") if next(spoilt, False) else loss

    train_command.spoil(monkeypatch, COMM, change)
    skip = ["--nonfinite", "skip", "--clip", "5"]
    short = [*SHORT, "--epochs", "2"]
    finished(run(*short, "--method", method, *skip, "--output", folder))
    losses = [r["loss"] for r in records_of(folder, LAST) if r["kind"] == "gradient"]
    assert losses[10:13] == [None] * 3
    assert None not in losses[:10] + losses[13:]
    assert summary_of(folder)["test_loss"] < 2.0


@pytest.mark.parametrize("method", ALL)
def test_an_exception_on_one_rank_ends_all(run, folder, monkeypatch, method):
    """At the same step, so that nothing is left pending and nobody aborts."""
    aborted = []
    monkeypatch.setattr(Company, "abort", lambda self, status: aborted.append(status))
    train_command.spoil(monkeypatch, COMM, lambda loss: loss / (1 // 0))
    ends = run(*ENDLESS, "--method", method, "--output", folder)
    assert [end[0] for end in ends] == [1] * COMM.size
    assert aborted == []
    summary = summary_of(folder)
    assert summary["stop_reason"] == "failed"
    errors = "".join(end[2] for end in ends)
    assert errors.count("Traceback") == 1
    assert errors.count("acidmpi: error: ") == 1
    assert "ZeroDivisionError" in ends[0][2]


def test_an_exception_within_a_backward_pass_ends_all(run, folder, monkeypatch):
    """Gradients of the last layers have been handed over by then."""
    backward, calls = gradients.Network.backward, iter(range(10**9))

    def fail(gradient):
        raise ZeroDivisionError("in a hook")

    def breaking(self, rate):
        if next(calls) == 10 and COMM.rank == LAST:
            next(self.model.parameters()).register_hook(fail)
        return backward(self, rate)

    monkeypatch.setattr(gradients.Network, "backward", breaking)
    aborted = []
    monkeypatch.setattr(Company, "abort", lambda self, status: aborted.append(status))
    ends = run(
        *ENDLESS, "--method", "allreduce", "--bucket-bytes", "0", "--output", folder
    )
    assert [end[0] for end in ends] == [1] * COMM.size
    assert aborted == []
    assert "ZeroDivisionError: in a hook" in ends[0][2]


@pytest.mark.parametrize("method", METHODS)
def test_a_signal_to_one_rank_ends_all_at_the_same_step(
    run, folder, monkeypatch, method
):
    signals = [signal.SIGTERM]  # one only: the second would end the process

    def interrupt(loss):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return loss

    train_command.spoil(monkeypatch, COMM, interrupt)
    ends = run(*ENDLESS, "--method", method, "--output", folder)
    only_rank_0_says(ends, 75, "preempted")
    summary = summary_of(folder)
    assert summary["stop_reason"] == "interrupted"
    assert len(set(summary["gradients"])) == 1
    assert summary["gradients"][0] >= 10


def test_a_compression_that_is_unknown_leaves_no_folder(run, folder):
    place = folder / "run"
    wrong = ["--method", "allreduce", "--compression", "topkk", "--output", place]
    only_rank_0_says(run(*SHORT, *wrong), 1, "'topkk'", "powersgd")
    assert not place.exists()
