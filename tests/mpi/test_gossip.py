"""Gossip on real ranks: the mean stays, the ranks agree in the end, everyone gets out."""

import threading
import time

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.errors import (
    ConfigError,
    DeadlineExceeded,
    DisagreementError,
    RemoteError,
    ThreadLevelError,
    TopologyError,
)
from acidmpi.worker.engine import Engine
from acidmpi.worker.gossip import Gossip

COMM = MPI.COMM_WORLD
METHODS = ["a2cid2", "async"]
PAIRINGS = ["handshake", "schedule", "fifo"]
WAYS = [(p, d) for p in PAIRINGS for d in ("thread", "inline")]

pytestmark = pytest.mark.mpi


def start_values(size, dtype):
    return np.random.default_rng(COMM.rank).normal(size=size).astype(dtype)


def mean_of(x):
    total = np.empty(x.shape)
    COMM.Allreduce(x.astype(np.float64), total)
    return total / COMM.size


def tolerance(dtype):
    return {"float64": 1e-12, "float32": 1e-5}[dtype]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("pairing", "progress"), WAYS)
def test_final_average_is_start_mean_plus_updates(method, pairing, progress):
    x = start_values(1000, "float64")
    expected = mean_of(x)
    generator = np.random.default_rng(100 + COMM.rank)
    added = np.zeros_like(x)
    steps = 30
    gossip = Gossip(
        x,
        comm=COMM,
        method=method,
        pairing=pairing,
        progress=progress,
        comm_rate=2.0,
        deadline_seconds=30,
        chunk_bytes=1024,
    )
    with gossip:
        for _ in range(steps):
            update = 0.1 * generator.normal(size=x.size)
            gossip.apply(update)
            added += update
            time.sleep(0.001)
    np.testing.assert_allclose(x, expected + mean_of(added), rtol=0, atol=1e-12)
    told = gossip.statistics()
    assert told.gradients == steps
    assert told.total_gradients == steps * COMM.size
    assert COMM.size == 1 or told.exchanges > 0
    assert told.mean_drift <= 1e-12


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_pure_averaging_keeps_the_mean_under_random_delays(dtype, method):
    x = start_values(5000, dtype)
    expected = mean_of(x)
    chance = np.random.default_rng(7 + COMM.rank)
    gossip = Gossip(
        x,
        comm=COMM,
        method=method,
        unit_seconds=0.004,
        chunk_bytes=4096,
        deadline_seconds=30,
    )
    gossip.engine.parts.exchanger.on_chunk = lambda: time.sleep(1e-3 * chance.random())
    with gossip:
        time.sleep(0.5)
    np.testing.assert_allclose(x, expected, rtol=0, atol=tolerance(dtype))
    if COMM.size > 1:
        assert gossip.statistics().exchanges > 3


def test_two_in_one_process_do_not_mix():
    a, b = start_values(100, "float64"), 10 + start_values(50, "float32")
    mean_a, mean_b = mean_of(a), mean_of(b)
    with (
        Gossip(a, comm=COMM, unit_seconds=0.002, deadline_seconds=30) as first,
        Gossip(b, comm=COMM, unit_seconds=0.002, deadline_seconds=30) as second,
    ):
        time.sleep(0.3)
    np.testing.assert_allclose(a, mean_a, atol=1e-12)
    np.testing.assert_allclose(b, mean_b, atol=1e-4)
    if COMM.size > 1:
        assert first.statistics().exchanges > 0
        assert second.statistics().exchanges > 0


def test_a_rank_that_leaves_early_keeps_answering():
    x = start_values(10, "float64")
    expected = mean_of(x)
    steps = 5 if COMM.rank == 0 else 100
    with Gossip(x, comm=COMM, comm_rate=2.0, deadline_seconds=30) as gossip:
        for _ in range(steps):
            gossip.apply(np.zeros(10))
            time.sleep(0.002)
    np.testing.assert_allclose(x, expected, atol=1e-12)
    assert gossip.statistics().total_gradients == 5 + 100 * (COMM.size - 1)


def test_goal_stops_everyone():
    x = start_values(10, "float64")
    goal = 50 * COMM.size
    with Gossip(x, comm=COMM, total_gradients=goal, deadline_seconds=30) as gossip:
        while not gossip.finished:
            gossip.apply(np.zeros(10))
            time.sleep(0.001)
    told = gossip.statistics()
    assert told.total_gradients >= goal
    assert gossip.stop_reason == "finished"


def test_stop_reaches_everyone():
    x = start_values(10, "float64")
    with Gossip(x, comm=COMM, deadline_seconds=30) as gossip:
        for step in range(100_000):
            if gossip.finished:
                break
            if step == 20 and COMM.rank == COMM.size - 1:
                gossip.stop()
            gossip.apply(np.zeros(10))
            time.sleep(0.0005)
    assert gossip.stop_reason == "interrupted"
    assert step < 100_000 - 1


@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_error_of_one_rank_reaches_all(progress):
    x = start_values(10, "float64")
    bad = COMM.size - 1

    def work():
        with Gossip(x, comm=COMM, progress=progress, deadline_seconds=30) as gossip:
            for step in range(100_000):
                if step == 20 and COMM.rank == bad:
                    raise ZeroDivisionError("the planted error")
                gossip.apply(np.zeros(10))
                time.sleep(0.0005)

    expected = ZeroDivisionError if COMM.rank == bad else RemoteError
    with pytest.raises(expected, match="the planted error"):
        work()


@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_error_in_a_communication_loop_reaches_all(progress):
    x = start_values(10, "float64")
    bad = COMM.size - 1
    gossip = Gossip(
        x, comm=COMM, unit_seconds=0.001, progress=progress, deadline_seconds=30
    )

    def fail():
        raise ZeroDivisionError("in the loop")

    if COMM.rank == bad:
        gossip.engine.parts.loop._averaging.poll = fail

    def work():
        with gossip:
            for _ in range(100_000):
                gossip.apply(np.zeros(10))
                time.sleep(0.0005)

    expected = ZeroDivisionError if COMM.rank == bad else RemoteError
    with pytest.raises(expected, match="in the loop"):
        work()
    assert not gossip.clean


def test_logical_time_is_repeated_to_the_last_bit():
    def run(delay):
        chance = np.random.default_rng(delay + COMM.rank)
        x = start_values(100, "float32")
        gossip = Gossip(
            x,
            comm=COMM,
            pairing="schedule",
            progress="inline",
            comm_rate=2.0,
            total_gradients=40 * COMM.size,
            deadline_seconds=30,
        )
        seen = []
        with gossip:
            while not gossip.finished:
                gossip.apply(np.float32(-0.1) * x + np.float32(COMM.rank))
                time.sleep(1e-3 * chance.random())
                seen.append(x.copy())
        return x.copy(), np.array(seen), gossip.statistics()

    first, path, told = run(0)
    second, again, _ = run(1000)
    np.testing.assert_array_equal(path, again)
    np.testing.assert_array_equal(first, second)
    assert told.gradients == 40
    if COMM.size > 1:
        assert told.exchanges > 0


def test_averages_reach_rank_0():
    # Ranks contribute at different moments: what an exchange moves between two of them
    # may be missing, so the average is as exact as the ranks agree.
    x = 5.0 + 1e-3 * start_values(10, "float64")
    expected = mean_of(x)
    seen = []
    with Gossip(
        x, comm=COMM, average_every=20, total_gradients=200, deadline_seconds=30
    ) as gossip:
        while not gossip.finished:
            gossip.apply(np.zeros(10))
            time.sleep(0.005)
            seen.append(gossip.take_average())
    seen = [a for a in (*seen, gossip.take_average()) if a is not None]
    assert bool(seen) == (COMM.rank == 0)
    for average in seen:
        np.testing.assert_allclose(average.arrays[0], expected, rtol=0, atol=0.02)
        assert average.total_gradients >= 20


def test_ranks_that_differ_are_named():
    if COMM.size == 1:
        Gossip(np.zeros(3), comm=COMM).close()
        return
    x = np.zeros(3 if COMM.rank else 4)
    with pytest.raises(DisagreementError, match="rank"):
        Gossip(x, comm=COMM, deadline_seconds=30)


def test_impossible_graph_is_refused_everywhere():
    with pytest.raises(TopologyError):
        Gossip(np.zeros(3), comm=COMM, topology="no-such-graph", deadline_seconds=30)


@pytest.mark.parametrize(
    "options", [{"comm_rate": -1.0}, {"method": "magic"}, {"nonsense": 1}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        Gossip(np.zeros(3), comm=COMM, **options)


def test_a_rank_whose_mpi_grants_too_little_tells_the_others(monkeypatch):
    last = COMM.size - 1
    if COMM.rank == last:
        monkeypatch.setattr(MPI, "Query_thread", lambda: MPI.THREAD_FUNNELED)
    error = ThreadLevelError if COMM.rank == last else RemoteError
    with pytest.raises(error, match="MPI_THREAD_MULTIPLE"):
        Gossip(np.zeros(3), comm=COMM, deadline_seconds=30)


def test_no_thread_is_left():
    before = threading.active_count()
    with Gossip(np.zeros(3), comm=COMM, unit_seconds=0.01, deadline_seconds=30):
        pass
    assert threading.active_count() == before


def test_an_error_in_the_first_exchanges_leaves_nothing_open(monkeypatch):
    made = []

    def fails(self, units):
        made.append(self)
        raise DeadlineExceeded("planted")

    monkeypatch.setattr(Engine, "_catch_up", fails)
    with pytest.raises(DeadlineExceeded, match="planted"):
        Gossip(np.ones(10), comm=COMM, deadline_seconds=30)
    assert made[0].parts.loop.ended, "MPI would write to memory that is gone"
