"""Averages in mid-run and at the end, over ranks of one process and over MPI_COMM_SELF."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.arrays.precision import narrow, widen
from acidmpi.clocks import ManualClock
from acidmpi.errors import DeadlineExceeded
from acidmpi.kernels import load
from acidmpi.testing.exchanges import ManualUnits
from acidmpi.worker import collecting
from acidmpi.worker.averaging import READ_BYTES, Averaging, Halves
from acidmpi.worker.final import (
    average_arrays,
    average_state,
    broadcast_arrays,
    mean,
)
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.state import RankState


def make_state(rank, dtype="float64", sizes=(30, 7)):
    generator = np.random.default_rng(rank)
    arrays = [narrow(generator.standard_normal(n), np.dtype(dtype)) for n in sizes]
    state = RankState(arrays, load("reference"), ManualUnits(), True)
    for tilde in state.x_tilde:
        tilde += 1.0
    return state


def half_sums(state):
    """(x + x̃)/2, one array for each buffer."""
    halves = Halves(state)
    assert halves.read(math.inf)
    return halves.arrays


class Ranks:
    def __init__(
        self,
        world,
        size=3,
        every=10,
        dtype="float64",
        sizes=(30, 7),
        read_bytes=READ_BYTES,
    ):
        self.clock = ManualClock()
        self.world = world(size)
        self.states = [make_state(r, dtype, sizes) for r in range(size)]
        self.ledgers = [Ledger(r, size, None) for r in range(size)]
        self.averaging = [
            Averaging(
                self.world.comm(r),
                self.states[r],
                self.ledgers[r],
                every,
                self.clock,
                5.0,
                read_bytes,
            )
            for r in range(size)
        ]

    def passed(self, total):
        for averaging in self.averaging:
            averaging.passed(total)

    def poll(self):
        for averaging in self.averaging:
            averaging.poll()
        return self.ledgers[0].take_average()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16"])
def test_rank_0_receives_the_mean_of_half_the_sums(world, dtype):
    ranks = Ranks(world, dtype=dtype)
    ranks.passed(10)
    average = ranks.poll()
    assert average.total_gradients == 10
    each = [half_sums(state) for state in ranks.states]
    assert len(average.arrays) == 2
    for k, array in enumerate(average.arrays):
        assert array.dtype == widen(ranks.states[0].arrays[k]).dtype
        np.testing.assert_allclose(
            array, np.mean([e[k] for e in each], axis=0), rtol=1e-6
        )
    assert all(ledger.take_average() is None for ledger in ranks.ledgers[1:])
    assert ranks.poll() is None


def test_half_sums_are_new_arrays_of_x_and_its_companion():
    state = make_state(0)
    halves = half_sums(state)
    for half, x, tilde in zip(halves, state.arrays, state.x_tilde, strict=True):
        np.testing.assert_allclose(half, (x + tilde) / 2, atol=1e-15)
        assert not np.shares_memory(half, x)


def test_marks_are_passed_once_each_and_missed_ones_are_not_made_up_for(world):
    ranks = Ranks(world)
    seen = []
    for total in (0, 3, 9, 10, 11, 19, 47, 48, 50):
        ranks.passed(total)
        average = ranks.poll()
        if average is not None:
            seen.append((total, average.total_gradients))
    assert seen == [(10, 10), (47, 47), (50, 50)]


def test_without_marks_there_are_no_averages(world):
    ranks = Ranks(world, every=None)
    ranks.passed(10**9)
    assert ranks.poll() is None
    assert not ranks.averaging[0].pending


def test_an_average_is_of_the_moment_at_which_it_began(world):
    ranks = Ranks(world)
    expected = np.mean([half_sums(state)[0] for state in ranks.states], axis=0)
    ranks.passed(10)
    for state in ranks.states:
        state.arrays[0][:] = 1e9
    np.testing.assert_allclose(ranks.poll().arrays[0], expected, atol=1e-14)


LONG = (3 * READ_BYTES // 8 + 5, 7)
"""Numbers of float64 that are read in four goes."""


def test_a_long_part_is_read_a_little_at_a_time(world):
    ranks = Ranks(world, size=2, sizes=LONG)
    expected = np.mean([half_sums(state)[0] for state in ranks.states], axis=0)
    ranks.passed(10)
    ranks.passed(20)
    seen = []
    for looks in range(20):
        average = ranks.poll()
        if average is not None:
            seen.append((looks, average.total_gradients))
            np.testing.assert_allclose(average.arrays[0], expected, atol=1e-14)
    assert [total for _, total in seen] == [10, 20]
    assert seen[0][0] >= 1, "something else had its turn between the pieces"
    assert not ranks.averaging[0].pending


def test_in_logical_time_a_long_part_is_of_one_moment(world):
    ranks = Ranks(world, size=2, sizes=LONG, read_bytes=math.inf)
    expected = np.mean([half_sums(state)[0] for state in ranks.states], axis=0)
    ranks.passed(10)
    for state in ranks.states:
        state.arrays[0][:] = 1e9
    np.testing.assert_allclose(ranks.poll().arrays[0], expected, atol=1e-14)


def test_a_read_takes_one_block_at_least():
    state = make_state(0, sizes=LONG)
    halves, goes = Halves(state), 1
    while not halves.read(most_bytes=1):
        goes += 1
    assert goes == len(state.blocks) > 4
    for found, whole in zip(halves.arrays, half_sums(state), strict=True):
        np.testing.assert_array_equal(found, whole)


class Parcels:
    """Stands for MPI between the lowest survivor and another one."""

    def __init__(self, monkeypatch):
        self.sent = []
        monkeypatch.setattr(collecting, "start_sending", self.send)
        monkeypatch.setattr(collecting, "start_receiving", self.receive)

    def send(self, comm, array, peer, tag):
        self.sent.append((peer, array.copy()))
        return SimpleNamespace(Test=lambda: True)

    def receive(self, comm, array, peer, tag):
        array[:] = self.sent.pop(0)[1]
        return SimpleNamespace(Test=lambda: True)


def test_survivors_read_a_little_at_a_time_too(monkeypatch):
    parcels, clock = Parcels(monkeypatch), ManualClock()
    states = [make_state(r, sizes=LONG) for r in range(2)]
    ledgers = [Ledger(r, 2, None) for r in range(2)]
    first, second = (
        collecting.Collecting(
            None,
            SimpleNamespace(leads=r == 0, others=(1 - r,), dead=()),
            states[r],
            ledgers[r],
            10,
            clock,
            5.0,
        )
        for r in range(2)
    )
    first.send = lambda peer, kind, load: second.hear(0, load)
    first.passed(10)
    assert first.pending
    assert second.pending
    looks = 0
    while second.pending:
        assert not parcels.sent
        second.poll()
        looks += 1
    assert looks >= 2
    assert [peer for peer, _ in parcels.sent] == [0, 0]
    looks = 0
    while first.pending:
        first.poll()
        looks += 1
    assert looks >= 3
    average = ledgers[0].take_average()
    for k, array in enumerate(average.arrays):
        expected = np.mean([half_sums(state)[k] for state in states], axis=0)
        np.testing.assert_allclose(array, expected, atol=1e-14)


def test_nobody_waits_for_a_slow_rank_until_the_end(world):
    ranks = Ranks(world)
    for averaging in ranks.averaging[:2]:
        averaging.passed(10)
        averaging.passed(20)
    assert ranks.poll() is None
    assert ranks.averaging[0].pending
    ranks.averaging[2].passed(10)
    assert ranks.poll().total_gradients == 10
    finishing = ranks.averaging[0].finish()
    next(finishing)
    ranks.averaging[2].passed(20)
    assert len(list(finishing)) <= 1
    assert ranks.ledgers[0].take_average().total_gradients == 20


def test_a_rank_that_never_comes_meets_the_deadline(world):
    ranks = Ranks(world)
    ranks.averaging[0].passed(10)
    finishing = ranks.averaging[0].finish()
    next(finishing)
    ranks.clock.advance(6.0)
    with pytest.raises(DeadlineExceeded, match="an average of all ranks"):
        next(finishing)


# The end of a run; more ranks in tests/mpi.

COMM = MPI.COMM_SELF


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16"])
def test_the_end_leaves_half_the_sum_in_both(dtype):
    state = make_state(0, dtype)
    before = [x.copy() for x in state.arrays]
    expected = half_sums(state)
    spread = average_state(COMM, state, 10.0)
    for x, tilde, half in zip(state.arrays, state.x_tilde, expected, strict=True):
        assert x.tobytes() == narrow(half, x.dtype).tobytes()
        assert tilde.tobytes() == widen(x).tobytes()
    assert spread.consensus_distance == 0.0
    everything = np.concatenate([widen(x) for x in before])
    assert spread.rms == pytest.approx(np.sqrt(np.mean(everything**2)), rel=1e-6)


def test_the_end_brings_the_state_to_the_present_first():
    state = make_state(0)
    state.set_eta(1.0)
    state.units.advance(100.0)
    expected = half_sums(state)
    spread = average_state(COMM, state, 10.0)
    np.testing.assert_allclose(state.arrays[0], expected[0], atol=1e-14)
    flat = np.concatenate(expected)
    assert spread.rms == pytest.approx(np.sqrt(np.mean(flat**2)))


def test_an_empty_state_has_an_end():
    state = make_state(0, sizes=(0,))
    spread = average_state(COMM, state, 10.0)
    assert spread.consensus_distance == spread.rms == 0.0


def awkward_arrays():
    return [
        np.array(3.5),
        np.zeros((0, 3)),
        np.arange(12.0).reshape(3, 4).T,
        np.arange(10, dtype=np.float32)[::2],
        narrow(np.linspace(0, 1, 5), np.dtype("uint16")),
        np.ones(3, np.float16),
    ]


@pytest.mark.parametrize("action", [average_arrays, broadcast_arrays])
def test_arrays_of_any_form_survive(action):
    arrays = awkward_arrays()
    action(COMM, arrays, 10.0)
    for array, before in zip(arrays, awkward_arrays(), strict=True):
        np.testing.assert_array_equal(array, before)


def test_flags_and_counts_can_be_handed_out():
    arrays = [np.array([True, False]), np.array(7, np.int64)]
    broadcast_arrays(COMM, arrays, 10.0)
    assert arrays[0].tolist() == [True, False]
    assert arrays[1] == 7


def test_a_mean_of_one_is_itself():
    np.testing.assert_array_equal(mean(COMM, np.arange(3.0), 10.0), np.arange(3.0))
