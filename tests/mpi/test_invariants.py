"""The invariants on real ranks: what happened is written down, gathered and replayed.

Engines are those of a run, but for states and exchangers that take notes. With one rank
there are gradients only, and their event list must be followed all the same.
"""

import time

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.arrays.flat import Chunk
from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.testing.exchanges import (
    RecordingExchanger,
    RecordingState,
    landings,
    replay,
)
from acidmpi.worker import assembly, engine
from acidmpi.worker.gossip import Gossip

COMM = MPI.COMM_WORLD
LENGTH = 60
WAYS = [
    ("handshake", "thread"),
    ("handshake", "inline"),
    ("fifo", "thread"),
    ("schedule", "inline"),
]

pytestmark = pytest.mark.mpi


def constants(options, graph, rate):
    """Instead of those that follow from the graph."""
    accelerated = options.method == "a2cid2"
    return Coefficients(0.3 * rate, 0.5, 1.3) if accelerated else BASELINE


class Notes:
    """What one rank did, and how it stood just before the final average."""

    def __init__(self, monkeypatch, state=RecordingState):
        def make(*arguments, **options):
            made = state(*arguments, **options)
            made.rank = COMM.rank
            return made

        monkeypatch.setattr(assembly, "RankState", make)
        monkeypatch.setattr(assembly, "Exchanger", RecordingExchanger)
        # On two ranks, or three in a ring, the constants are such that x̃ stays x.
        monkeypatch.setattr(assembly, "_coefficients", constants)
        original = engine.average_state

        def average(comm, state, seconds):
            self.end = self.look(state)
            return original(comm, state, seconds)

        monkeypatch.setattr(engine, "average_state", average)

    @staticmethod
    def look(state):
        whole = Chunk(0, 0, LENGTH)
        x, half = np.empty(LENGTH), np.empty(LENGTH)
        theta = state.snapshot(whole, x)
        state.half_sum(whole, half)
        return theta, x, half


BASELINES = {
    "async": {"method": "async", "comm_rate": 2.0},
    "adpsgd": {"method": "adpsgd", "topology": "path", "comm_rate": 1.0},
}


def run(notes, pairing="handshake", progress="thread", gradients=40, **more):
    """A short run with updates at random moments; what all ranks did, on rank 0."""
    chance = np.random.default_rng(COMM.rank)
    start = chance.standard_normal(LENGTH)
    gossip = Gossip(
        start.copy(),
        comm=COMM,
        pairing=pairing,
        progress=progress,
        total_gradients=gradients * COMM.size,
        chunk_bytes=128,
        deadline_seconds=30.0,
        **{"comm_rate": 2.0, **more},
    )
    parts = gossip.engine.parts
    parts.exchanger.on_chunk = lambda: time.sleep(2e-4 * chance.random())
    with gossip:
        for _ in range(10 * gradients):
            if gossip.finished:
                break
            gossip.apply(0.1 * chance.standard_normal(LENGTH))
            time.sleep(2e-3 * chance.random())
    assert COMM.size == 1 or gossip.statistics().exchanges > 0
    gathered = COMM.gather((start, parts.state.events, notes.end))
    return None if gathered is None else tuple(zip(*gathered, strict=True))


def check_all(starts, logs, ends):
    check_antisymmetry(logs)
    check_mean(starts, logs, ends)
    check_event_list(starts, logs, ends)


def check_event_list(starts, logs, ends):
    """Every rank ended where the float64 event list says."""
    for rank, (theta, x, half) in zip(replay(starts, logs), ends, strict=True):
        rank.advance(theta)
        bound = 1e-12 * (1.0 + np.abs(rank.x_tilde).max())
        np.testing.assert_allclose(x, rank.x, rtol=0, atol=bound)
        np.testing.assert_allclose(
            half, (rank.x + rank.x_tilde) / 2, rtol=0, atol=bound
        )


def check_antisymmetry(logs):
    """Both ends of each chunk used the same two messages and the same α̃."""
    ends = {
        (landing.label, landing.start, rank): landing
        for rank, log in enumerate(logs)
        for landing in landings(log)
    }
    for (label, start, _), here in ends.items():
        there = ends[label, start, here.peer]
        assert here.sent == there.received
        assert here.received == there.sent
        assert here.coefficients == there.coefficients


def check_mean(starts, logs, ends):
    """½Σ(x + x̃) changes by gradients only."""
    updates = [e.update for log in logs for e in log if hasattr(e, "update")]
    expected = np.sum([*starts, *updates], axis=0)
    found = np.sum([half for _, _, half in ends], axis=0)
    largest = max(np.abs(2 * half - x).max() for _, x, half in ends)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * (10 + largest))


@pytest.mark.parametrize(("pairing", "progress"), WAYS)
def test_a_run_follows_the_event_list(monkeypatch, pairing, progress):
    found = run(Notes(monkeypatch), pairing, progress)
    if found is None:
        return
    check_all(*found)
    if COMM.size > 1:
        _, logs, ends = found
        assert all(any(True for _ in landings(log)) for log in logs)
        assert all(theta > 1.0 for theta, _, _ in ends), "x and x̃ are mixed"
        apart = max(np.abs(half - x).max() for _, x, half in ends)
        assert apart > 1e-9, "x̃ is not x"  # it nears x while ranks wait


@pytest.mark.parametrize("options", BASELINES.values(), ids=BASELINES)
def test_the_baseline_is_plain_averaging(monkeypatch, options):
    notes = Notes(monkeypatch)
    found = run(notes, **options)
    _, x, half = notes.end
    assert x.tobytes() == half.tobytes()
    if found is not None:
        check_all(*found)


class SendsUnmixed(RecordingState):
    """A planted fault: x is sent as it was at the last event."""

    def snapshot(self, chunk, out):
        theta = super().snapshot(chunk, out)
        if self.meeting is not None:
            out[:] = self.arrays[chunk.buffer][chunk.start : chunk.stop]
        return theta


class OwnAlphaTilde(RecordingState):
    """A planted fault: each end uses an α̃ of its own."""

    def apply_exchange(self, *arguments):
        *rest, alpha_tilde = arguments
        super().apply_exchange(*rest, alpha_tilde + 0.01 * self.rank)


class ForgetsTheCompanion(RecordingState):
    """A planted fault that one rank alone can show: updates do not reach x̃."""

    def apply_gradient(self, updates):
        kept = [tilde.copy() for tilde in self.x_tilde]
        super().apply_gradient(updates)
        for tilde, before in zip(self.x_tilde, kept, strict=True):
            tilde[:] = before


@pytest.mark.parametrize("fault", [SendsUnmixed, OwnAlphaTilde, ForgetsTheCompanion])
def test_a_planted_fault_is_found(monkeypatch, fault):
    if COMM.size == 1:
        fault = ForgetsTheCompanion
    found = run(Notes(monkeypatch, fault), "schedule", "inline")
    if found is not None:
        with pytest.raises(AssertionError):
            check_all(*found)


def test_every_control_message_is_received(monkeypatch):
    """Also those that tell of a goal that only the last heartbeat saw."""
    for round in range(4):
        gossip = Gossip(
            np.ones(3),
            comm=COMM,
            comm_rate=0.0 if round % 2 else 2.0,
            total_gradients=5 * COMM.size,
            deadline_seconds=30.0,
        )
        with gossip:
            for _ in range(5):
                gossip.apply(np.ones(3))
        wire = gossip.engine.parts.wire
        mine = np.array(wire.sent_to, np.int64)
        sent = np.empty_like(mine)
        COMM.Allreduce(mine, sent)
        assert wire.received == sent[COMM.rank]
        assert gossip.stop_reason == "finished"
