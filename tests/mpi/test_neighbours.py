"""Averages with neighbours on real ranks: what they come to, beside a computation."""

import time

import numpy as np
import pytest
from mpi4py import MPI
from support import cupy_like
from support.apart import Apart

from acidmpi.arrays import bfloat16
from acidmpi.errors import DeadlineExceeded, DisagreementError, RemoteError
from acidmpi.parallel import neighbours
from acidmpi.parallel.neighbours import NeighbourAverager
from acidmpi.topology.rounds import ONE_PEER, make_rounds

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
LAST = SIZE - 1

pytestmark = [pytest.mark.mpi, pytest.mark.limit(60)]
several = pytest.mark.skipif(SIZE == 1, reason="one rank has no neighbours")


def open_averager(arrays, topology=ONE_PEER, **options):
    usual = {"deadline_seconds": 20.0}
    return NeighbourAverager(arrays, COMM, topology=topology, **usual | options)


def start_of(rank):
    chance = np.random.default_rng(rank)
    return [chance.standard_normal(300), chance.standard_normal(7).astype(np.float32)]


def expected(topology, steps):
    """The same in one process: one array of all ranks for each of `start_of`."""
    ranks = [make_rounds(topology, rank, SIZE).steps for rank in range(SIZE)]
    held = [np.stack(rows) for rows in zip(*map(start_of, range(SIZE)), strict=True)]
    for step in range(steps if SIZE > 1 else 0):
        held = [one_step(x, [r[step % len(r)] for r in ranks]) for x in held]
    return held


def one_step(x, parts):
    after = x.copy()
    for rank, part in enumerate(parts):
        for source, weight in zip(part.sources, part.weights, strict=True):
            after[rank] += weight * (x[source] - x[rank])
    return after


@pytest.mark.parametrize("progress", ["thread", "inline"])
@pytest.mark.parametrize("topology", [ONE_PEER, "ring", "star"])
def test_ranks_end_where_the_matrices_say(topology, progress, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 256)
    arrays = start_of(RANK)
    with open_averager(arrays, topology, progress=progress) as averager:
        for _ in range(7):
            averager.begin()
            averager.finish()
    for x, all_of_them in zip(arrays, expected(topology, 7), strict=True):
        np.testing.assert_allclose(x, all_of_them[RANK], rtol=0, atol=1e-6)
    starts = zip(*map(start_of, range(SIZE)), strict=True)
    for x, rows in zip(arrays, starts, strict=True):
        total = np.sum(COMM.allgather(x), axis=0, dtype=np.float64)
        before = np.sum(rows, axis=0, dtype=np.float64)
        bound = 40 * SIZE * np.finfo(x.dtype).eps
        np.testing.assert_allclose(total, before, rtol=0, atol=bound)


@pytest.mark.parametrize("progress", ["thread", "inline"])
@pytest.mark.parametrize("topology", [ONE_PEER, "ring", "star"])
def test_arrays_of_a_device_end_as_those_of_the_host(topology, progress, monkeypatch):
    """To the last bit; a stand-in whose arrays refuse to meet NumPy's."""
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 256)
    mine = start_of(RANK)
    mine += [mine[0].astype(np.float16), bfloat16.encode(mine[0])]
    theirs = [cupy_like.asarray(x) for x in mine]
    device = Apart(patience=RANK + 1)
    options = {"topology": topology, "progress": progress}
    with (
        open_averager(mine, **options) as here,
        open_averager(theirs, **options, accelerator=device) as there,
    ):
        for _ in range(3):
            for averager in (here, there):
                averager.begin()
                averager.finish()
        assert here.statistics().bytes_sent == there.statistics().bytes_sent
    for x, y in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(x, y.get())
    assert SIZE == 1 or device.copied_bytes


@pytest.mark.skipif(SIZE & LAST, reason="exact for powers of two")
def test_one_peer_is_exact_after_log2_of_the_ranks():
    arrays = start_of(RANK)
    steps = LAST.bit_length()
    with open_averager(arrays) as averager:
        for _ in range(steps):
            averager.begin()
            averager.finish()
        told = averager.statistics()
    assert len(set(COMM.allgather(b"".join(x.tobytes() for x in arrays)))) == 1
    assert told.bytes_sent == steps * sum(x.nbytes for x in arrays)


@several
def test_parameters_travel_while_the_caller_computes():
    """Nobody calls the averager between `begin` and the moment when all is there."""
    (x,) = arrays = [np.full(500_000, float(RANK))]
    with open_averager(arrays) as averager:
        averager.begin()
        end = time.monotonic() + 20.0
        while not averager.meeting.seconds > 0 and time.monotonic() < end:
            assert (x[::1000] == RANK).all()
            time.sleep(1e-3)
        assert averager.meeting.seconds > 0
        COMM.barrier()
        averager.finish()
        waited = averager.statistics().seconds_waiting
    (source,) = averager.meeting.sources
    assert (x == (RANK + source) / 2).all()
    assert waited < averager.meeting.seconds + 1.0


@several
@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_a_failure_between_begin_and_finish_reaches_all(progress):
    averager = open_averager(start_of(RANK), progress=progress)

    def run():
        with averager:
            for step in range(10**6):
                averager.begin()
                if RANK == LAST and step == 3:
                    raise ZeroDivisionError("a gradient")
                averager.finish()

    kind = ZeroDivisionError if RANK == LAST else RemoteError
    with pytest.raises(kind, match="a gradient"):
        run()
    COMM.barrier()


@several
def test_a_rank_that_stands_still_is_waited_for_no_longer_than_that():
    averager = open_averager(start_of(RANK), deadline_seconds=0.5)

    def run():
        with averager:
            for _ in range(2):  # by then everybody waits for everybody
                averager.begin()
                averager.finish()

    if RANK != LAST:
        with pytest.raises((DeadlineExceeded, RemoteError)):
            run()
    COMM.barrier()
    if RANK == LAST:
        with pytest.raises(RemoteError):
            run()
    COMM.barrier()


@several
def test_ranks_with_different_graphs_are_told():
    topology = "star" if RANK == LAST else ONE_PEER
    with pytest.raises(DisagreementError, match="one-peer-exponential"):
        open_averager(start_of(RANK), topology)
    COMM.barrier()
