"""One contract for every method of the trainer: the same files, so that one table holds."""

import pytest
from mpi4py import MPI
from support.train_command import finished, records_of, summary_of

from acidmpi.config.options import options_of
from acidmpi.config.train import TrainConfig
from acidmpi.telemetry.summary import FIELDS
from acidmpi.train import gradients, session

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
RUNS = {
    "a2cid2": [],
    "async": ["--comm-rate", "2"],
    "adpsgd": ["--topology", "path"],
    "gossip": [],
    "allreduce": ["--clip", "100"],
    "localsgd": ["--local-steps", "4"],
}
QUADRATIC = ["--task", "quadratic", "--epochs", "1", "--progress", "inline"]
"""Long enough, tenths of a second, that a rank which has to wait for a core takes part."""
COMMON = {"schema", "kind", "seconds", "time", "gradients"}
RECORDS = {
    "gradient": COMMON | {"loss", "lr"},
    "exchange": COMMON | {"peer", "sent_bytes", "exchange_seconds"},
    "heartbeat": COMMON | {"total_gradients", "comm_rate", "consensus_distance"},
    "evaluation": COMMON | {"test_loss", "test_accuracy"},
}
IN_PAIRS = ("a2cid2", "async", "adpsgd")


def test_every_method_is_held_to_it():
    (method,) = (o for o in options_of(TrainConfig) if o.name == "method")
    assert set(RUNS) == set(method.choices)


@pytest.mark.parametrize("method", RUNS)
def test_every_method_leaves_the_same_files(run, folder, method):
    more = [*RUNS[method], "--evaluate-every", "0.3", "--deadline-seconds", "60"]
    finished(run(*QUADRATIC, "--method", method, *more, "--output", folder))
    summary = summary_of(folder)
    assert list(summary) == list(FIELDS)
    assert (summary["method"], summary["stop_reason"]) == (method, "finished")
    assert sum(summary["gradients"]) >= 1000
    assert summary["test_loss"] < 150  # 305 at the start
    assert summary["consensus_distance"] >= 0
    assert (summary["pairing"] is None) == (method not in IN_PAIRS)
    for rank in range(COMM.size):
        check_records(summary, rank, records_of(folder, rank))
    if COMM.size > 1:
        assert min(summary["bytes_sent"]) > 0
        check_exchanges(summary, method)


def check_records(summary, rank, records):
    kinds = [record["kind"] for record in records]
    assert {"gradient", "heartbeat"} <= set(kinds)
    for record in records:
        assert set(record) == RECORDS[record["kind"]]
    assert kinds.count("gradient") == summary["gradients"][rank]
    assert kinds.count("exchange") == summary["exchanges"][rank]
    assert (kinds.count("evaluation") > 0) == (rank == 0)
    exchanges = [record for record in records if record["kind"] == "exchange"]
    assert all(e["sent_bytes"] == 4000 for e in exchanges)
    assert all(0 <= e["exchange_seconds"] < 60 for e in exchanges)
    assert rank not in {e["peer"] for e in exchanges}
    for beat in (record for record in records if record["kind"] == "heartbeat"):
        assert beat["consensus_distance"] >= 0


def check_exchanges(summary, method):
    rate, steps = summary["comm_rate_measured"], max(summary["gradients"])
    if method in ("allreduce", "localsgd"):
        assert (rate, max(summary["exchanges"])) == (None, 0)
    elif method == "gossip":
        assert (rate, summary["exchanges"]) == (1.0, [steps] * COMM.size)
    else:
        assert min(summary["exchanges"]) > 0
    if method == "async":
        assert rate == pytest.approx(2.0, abs=0.5)
    if method == "adpsgd":
        for active, made in enumerate(summary["gradients"][::2]):
            assert summary["exchanges"][2 * active] <= made


def test_allreduce_sends_gradients_while_it_computes_them(run, folder, monkeypatch):
    """What has been posted when the backward pass returns, parameter by parameter."""
    trainers, posted = [], []
    make, backward = session.make_trainer, gradients.Network.backward

    def keep(*arguments):
        trainers.append(make(*arguments))
        return trainers[-1]

    def look(self, rate):
        optimizer = trainers[0]._optimizer
        before = optimizer.statistics().messages
        loss = backward(self, rate)
        posted.append(optimizer.statistics().messages - before)
        return loss

    monkeypatch.setattr(session, "make_trainer", keep)
    monkeypatch.setattr(gradients.Network, "backward", look)
    options = ["--bucket-bytes", "0", "--progress", "inline", "--epochs", "0.2"]
    finished(run("--method", "allreduce", *options, "--output", folder))
    parameters = len(list(trainers[0]._network.model.parameters()))
    assert parameters > 2
    assert set(posted) == {parameters}
