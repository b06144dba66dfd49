"""How an exchanger moves chunks: its staging memory, its waits, its accounts."""

import numpy as np
import pytest

from acidmpi.clocks import ManualClock
from acidmpi.errors import DeadlineExceeded, PeerFailed
from acidmpi.kernels import load
from acidmpi.progress import Pace
from acidmpi.testing.exchanges import ManualUnits
from acidmpi.transport.loopback import LoopbackHub
from acidmpi.worker.exchange import DEPTH, Exchanger, Terms
from acidmpi.worker.state import RankState

SIZES = (37, 50)


class Pair:
    """Two ranks of one process."""

    def __init__(self, sizes=SIZES, dtype="float64", chunk_bytes=64, hot_seconds=0.0):
        self.clock = ManualClock()
        self.hub = LoopbackHub(2)
        self.states, self.exchangers = [], []
        for rank in range(2):
            x = [np.random.default_rng([rank, n]).normal(size=n) for n in sizes]
            state = RankState(
                [a.astype(dtype) for a in x], load("reference"), ManualUnits(), True
            )
            transport = self.hub.transport(rank)
            self.states.append(state)
            self.exchangers.append(
                Exchanger(state, transport, chunk_bytes, self.clock, 5.0, hot_seconds)
            )

    def steps(self, rank, *rest):
        return self.exchangers[rank].exchange(Terms(1 - rank, 0.5, 0.5), *rest)

    def run(self):
        going = [self.steps(0), self.steps(1)]
        while going:
            going = [side for side in going if next(side, None) is not None]


@pytest.mark.parametrize("sizes", [SIZES, (1,), (0, 3), (1000,), (24,), (16,)])
@pytest.mark.parametrize("chunk_bytes", [8, 64, 200, 1 << 20, 1 << 60])
def test_ranks_meet_in_the_middle(sizes, chunk_bytes):
    pair = Pair(sizes, chunk_bytes=chunk_bytes)
    start = [[x.copy() for x in state.arrays] for state in pair.states]
    pair.run()
    for k in range(len(sizes)):
        middle = (start[0][k] + start[1][k]) / 2
        for state in pair.states:
            np.testing.assert_allclose(state.arrays[k], middle, atol=1e-15)
    assert pair.exchangers[0].bytes_each_way == 8 * sum(sizes)


def test_only_a_few_chunks_are_under_way():
    pair = Pair()
    steps = pair.steps(0)
    next(steps)
    assert len(pair.hub.sent[0, 1]) == DEPTH
    assert len(pair.exchangers[0]._places) == DEPTH, "staging is not a copy of x"


def test_a_fast_link_uses_one_place_again_and_again():
    """What has landed is applied before more is prepared, in the memory used last."""
    pair, used = Pair(), set()
    mine = pair.exchangers[0]
    mine.on_chunk = lambda: used.add(id(mine._free[-1]))
    post = mine._transport.post

    def answered(peer, send, receive):
        pending = post(peer, send, receive)
        next(other, None)
        return pending

    mine._transport.post = answered
    other = pair.steps(1)
    next(other)
    for _ in pair.steps(0):
        next(other, None)
    assert mine.landed == len(mine._plan) > DEPTH
    assert len(used) < DEPTH


def test_every_chunk_that_lands_counts():
    pair = Pair()
    pair.run()
    for side in pair.exchangers:
        assert side.landed == len(side._plan)


def test_what_follows_may_be_sent_once_all_has_come():
    """`arrived` is called when nothing is on the wire, before the last chunk is applied."""
    pair, seen = Pair(), []
    sides = [pair.steps(rank, lambda: seen.append(pair.waiting())) for rank in range(2)]
    pair.waiting = lambda: sum(len(queue) for queue in pair.hub.waiting.values())
    while sides:
        sides = [side for side in sides if next(side, None) is not None]
    assert len(seen) == 2
    assert seen[-1] == 0


def test_an_exchange_of_nothing_arrives_at_once():
    pair, seen = Pair(sizes=(0,)), []
    assert list(pair.steps(0, lambda: seen.append(1))) == []
    assert seen == [1]


def test_a_wait_is_hot_only_for_a_moment():
    pair = Pair(hot_seconds=0.5)
    steps = pair.steps(0)
    assert next(steps) is Pace.HOT
    pair.clock.advance(0.4)
    assert next(steps) is Pace.HOT
    pair.clock.advance(0.2)
    assert next(steps) is Pace.POLL


def test_each_chunk_renews_the_deadline():
    pair = Pair(sizes=(100,), chunk_bytes=8)
    sides = [pair.steps(0), pair.steps(1)]
    while sides:
        pair.clock.advance(1.0)  # far longer than the deadline in all
        sides = [side for side in sides if next(side, None) is not None]
    assert pair.clock.now() > 6.0


def test_a_silent_peer_has_failed_after_the_deadline():
    pair = Pair()
    steps = pair.steps(0)
    next(steps)
    pair.clock.advance(4.9)
    next(steps)
    pair.clock.advance(0.2)
    with pytest.raises(PeerFailed, match=r"rank 1 failed .* a chunk") as caught:
        next(steps)
    assert caught.value.peer == 1
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert "5 s" in str(caught.value.__cause__)


def test_a_dead_peer_has_failed_at_once():
    pair = Pair()
    steps = pair.steps(0)
    next(steps)
    pair.hub.kill(1)
    with pytest.raises(PeerFailed, match="rank 1"):
        next(steps)


def test_abandoning_leaves_nothing_on_the_wire():
    pair = Pair()
    next(pair.steps(0))
    pair.exchangers[0].abandon()
    assert not pair.hub.sent[0, 1]
    assert not pair.hub.waiting[1, 0]


def test_the_accounts_of_both_ends_cancel():
    pair = Pair(sizes=(4000,), chunk_bytes=8000)
    for _ in range(3):
        pair.run()
    drifts = [exchanger.drift for exchanger in pair.exchangers]
    assert drifts[0] != 0.0
    assert drifts[0] == -drifts[1]
    assert 0 < pair.exchangers[0].checked < 4000, "a sample is enough"


def test_chunks_are_told_one_by_one():
    pair, seen = Pair(), []
    pair.exchangers[0].on_chunk = lambda: seen.append(1)
    pair.run()
    assert len(seen) == len(pair.exchangers[0]._plan)


def test_a_complete_exchange_allows_for_mixing():
    pair, counted = Pair(), []
    for state in pair.states:
        state.count_exchange = lambda: counted.append(1)
    steps = pair.steps(0)
    next(steps)
    assert not counted, "not before it is over"
    for _ in pair.steps(1):
        next(steps, None)
    list(steps)
    assert counted == [1, 1]
