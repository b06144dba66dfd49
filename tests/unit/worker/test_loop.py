"""Communication loops of a few ranks in one process: how they pair, tell and end."""

import random

import numpy as np
import pytest

from acidmpi.errors import DeadlineExceeded, PeerFailed, RemoteError
from acidmpi.mpi.reductions import MPIError
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.wire import FAIL, STOP
from acidmpi.progress import Pace
from acidmpi.worker.ledger import BROKEN, FAILED, FINISHED, INTERRUPTED

SIZES = [1, 2, 3, 5]


@pytest.mark.parametrize("size", SIZES)
def test_ranks_exchange_keep_the_mean_and_end_together(fleet, size):
    ships = fleet(size, rate=2.0)
    before = ships.mean
    ships.run(60.0)
    assert not ships.ended
    exchanges = [one.tally.exchanges for one in ships.ranks]
    if size > 1:
        assert all(60 < made < 240 for made in exchanges)
        spread = np.ptp([one.state.arrays[0] for one in ships.ranks], axis=0)
        assert spread.max() < 0.1
    ships.retire()
    ships.run(20.0)
    assert ships.ended
    np.testing.assert_allclose(ships.mean, before, rtol=0, atol=1e-12)
    assert all(one.loop.clean and one.wire.closed for one in ships.ranks)
    assert sum(one.tally.exchanges for one in ships.ranks) % 2 == 0


def test_a_rank_that_left_goes_on_answering(fleet):
    ships = fleet(3, rate=2.0)
    ships.ranks[0].ledger.retired = True
    ships.run(40.0)
    assert not ships.ended
    assert ships.ranks[0].machine.retired
    assert ships.ranks[0].tally.exchanges > 20
    ships.retire()
    ships.run(20.0)
    assert ships.ended


def lost_messages(ships):
    """Messages of each rank that were sent to it and never received."""
    sent = sum(np.array(one.wire.sent_to) for one in ships.ranks)
    return [int(sent[one.rank]) - one.wire.received for one in ships.ranks]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", [0.0, 2.0])
def test_every_message_is_received_before_the_end(fleet, size, rate):
    ships = fleet(size, rate=rate)
    ships.run(10.0)
    ships.ranks[0].ledger.raise_flags(INTERRUPTED)
    ships.retire()
    ships.run(20.0)
    assert ships.ended
    assert lost_messages(ships) == [0] * size


@pytest.mark.parametrize("size", SIZES)
def test_news_of_the_last_moment_are_not_left_behind(fleet, size):
    """The goal is reached by gradients that only the last heartbeat tells of."""
    for seed in range(20):
        chance = random.Random(seed)
        ships = fleet(size, goal=size, rate=0.0)
        ships.run(0.3 + 0.02 * seed, chance=chance)
        for one in ships.ranks:
            one.ledger.count_gradient(None, 0)
        ships.retire()
        ships.run(20.0, chance=chance)
        assert ships.ended
        assert all(one.ledger.flags == FINISHED for one in ships.ranks)
        assert lost_messages(ships) == [0] * size


def test_a_stop_at_the_last_moment_is_not_left_behind(fleet):
    """Every moment at which an interruption may come while ranks end."""
    for moment in range(20):
        ships = fleet(3, rate=0.0)
        ships.run(1.0)
        ships.retire()
        ships.run(moment * 0.01)
        ships.ranks[1].ledger.raise_flags(INTERRUPTED)
        ships.run(20.0, chance=random.Random(moment))
        assert ships.ended
        assert lost_messages(ships) == [0] * 3, moment


@pytest.mark.parametrize("numbers", [0, 1])
def test_exchanges_of_nothing_and_of_one_number_are_exchanges(fleet, numbers):
    ships = fleet(2, rate=2.0, numbers=numbers)
    ships.run(5.0)
    assert all(5 < one.tally.exchanges < 25 for one in ships.ranks)
    ships.retire()
    ships.run(20.0)
    assert ships.ended


def test_flags_reach_everyone_by_neighbours(fleet):
    ships = fleet(5, rate=0.0)
    ships.ranks[2].ledger.raise_flags(INTERRUPTED)
    ships.run(0.1)
    assert all(one.ledger.stopped for one in ships.ranks)
    assert all(one.ledger.stop_reason == "interrupted" for one in ships.ranks)


def test_counts_ride_on_messages(fleet):
    ships = fleet(2, rate=2.0, goal=7)
    ships.run(0.05)  # before the first heartbeat could tell
    ships.ranks[0].ledger.learn_all(np.zeros(2))
    for _ in range(7):
        ships.ranks[0].ledger.count_gradient(None, 0)
    ships.run(0.02)
    assert ships.ranks[1].ledger.total_gradients == 7
    assert ships.ranks[1].ledger.stop_reason == "finished"


def test_a_failure_reaches_everyone_with_its_text(fleet):
    ships = fleet(5)
    ships.run(3.0)
    ships.ranks[1].ledger.fail(ZeroDivisionError("planted"))
    ships.run(0.1)
    assert isinstance(ships.ranks[1].ledger.failure, ZeroDivisionError)
    for one in ships.ranks:
        if one.rank != 1:
            assert isinstance(one.ledger.failure, RemoteError)
            assert one.ledger.failure.rank == 1
            assert one.ledger.failure.text == "ZeroDivisionError: planted"
        assert one.ledger.stop_reason == "failed"
    # Communication itself is sound: all end in an orderly way.
    ships.retire()
    ships.run(20.0)
    assert ships.ended
    assert all(one.loop.clean for one in ships.ranks)
    assert lost_messages(ships) == [0] * 5


def test_a_dead_loop_ends_the_others(fleet):
    ships = fleet(5)
    ships.run(3.0)
    dead = ships.ranks[1]
    dead.loop.abandon(RuntimeError("planted"))
    assert dead.loop.ended
    assert not dead.loop.clean
    assert dead.wire.closed
    for one in ships.ranks:
        if one.rank != 1:
            with pytest.raises(
                RemoteError, match="rank 1 failed: RuntimeError: planted"
            ):
                ships.advance(one)
    assert all(
        one.ledger.flags & FAILED and one.ledger.flags & BROKEN for one in ships.ranks
    )


def test_the_first_failure_is_the_one_that_is_told(fleet):
    ships = fleet(2)
    ships.ranks[0].ledger.fail(ValueError("first"))
    ships.ranks[0].loop.abandon(RuntimeError("second"))
    texts = [m.text for m in ships.post[1] if m.kind == FAIL]
    assert texts == ["ValueError: first"]


def test_a_failure_of_another_rank_is_not_told_as_ones_own(fleet):
    ships = fleet(3)
    ships.ranks[0].loop.abandon(RemoteError(2, "its own"))
    assert not any(m.kind == FAIL for queue in ships.post.values() for m in queue)


def test_abandoning_survives_a_broken_mpi(fleet):
    ships = fleet(2)
    one = ships.ranks[0]

    def broken(*arguments):
        raise MPIError(1)

    one.wire.send = broken
    one.loop.abandon(ZeroDivisionError("the first"))
    assert one.loop.ended
    assert isinstance(one.ledger.failure, ZeroDivisionError)


def test_an_answer_that_never_comes_is_a_failed_peer(fleet, monkeypatch):
    """As with the protocols that set nobody aside."""
    monkeypatch.setattr(HandshakeMachine, "can_set_aside", False)
    ships = fleet(2, deadline=5.0)
    ships.ranks[1].wire.deaf = True
    with pytest.raises(
        PeerFailed, match=r"rank 1 failed while .* the answer to a request"
    ):
        ships.run(60.0)
    assert 5.0 < ships.clock.now() < 20.0


def test_a_rank_that_hears_nobody_is_a_failed_peer(fleet):
    ships = fleet(2, deadline=5.0)
    ships.ranks[1].wire.deaf = True
    with pytest.raises(PeerFailed, match=r"rank 1 failed"):
        ships.run(60.0)
    assert 5.0 < ships.clock.now() < 30.0


def test_a_chunk_that_never_comes_is_a_failed_peer(fleet):
    ships = fleet(2, deadline=5.0, rate=5.0)
    ships.ranks[1].exchanger.exchange = lambda *_: iter(lambda: Pace.POLL, None)
    with pytest.raises(PeerFailed, match=r"rank 1 failed while .* a chunk"):
        ships.run(60.0)
    assert ships.clock.now() < 20.0


def test_an_end_that_never_comes_meets_the_deadline(fleet):
    ships = fleet(3, deadline=5.0, rate=0.0)
    ships.run(1.0)
    ships.ranks[2].wire.quiet = False
    ships.retire()
    with pytest.raises(DeadlineExceeded, match="the end of all ranks"):
        ships.run(60.0)


def test_a_silent_rank_meets_the_deadline_of_the_heartbeat(fleet):
    ships = fleet(3, deadline=5.0, rate=0.0)
    ships.world.silent.add(1)
    with pytest.raises(DeadlineExceeded, match="heartbeat"):
        ships.run(60.0)


def test_both_ends_use_the_smaller_alpha_tilde(fleet):
    ships = fleet(2, rate=5.0)
    used = {0: [], 1: []}
    for one, offered in zip(ships.ranks, (0.9, 0.7), strict=True):
        one.pulse._governor = None
        one.pulse.coefficients = one.pulse.coefficients._replace(alpha_tilde=offered)
        original = one.state.apply_exchange

        def record(*arguments, rank=one.rank, original=original):
            used[rank].append(arguments[-1])
            original(*arguments)

        one.state.apply_exchange = record
    ships.run(10.0)
    assert used[0]
    assert set(used[0] + used[1]) == {0.7}


def test_exchanges_are_told_and_what_is_due_is_served(fleet):
    ships = fleet(2, rate=2.0)
    ships.run(5.0)
    for one in ships.ranks:
        assert one.demand.due() <= 3
        assert one.ledger.lag(1.0) == -one.tally.exchanges < 0


def test_nothing_happens_after_the_end(fleet):
    ships = fleet(2, rate=0.0)
    ships.retire()
    ships.run(20.0)
    assert ships.ended
    ships.ranks[0].ledger.raise_flags(INTERRUPTED)
    assert ships.ranks[0].loop.advance() is Pace.POLL
    assert not ships.post[1]


def test_no_rank_starts_while_it_stops(fleet):
    ships = fleet(2, rate=5.0)
    ships.run(3.0)
    for one in ships.ranks:
        one.ledger.raise_flags(INTERRUPTED)
    ships.run(1.0)
    before = [one.tally.exchanges for one in ships.ranks]
    ships.run(10.0)
    assert [one.tally.exchanges for one in ships.ranks] == before
    assert not any(m.kind not in (STOP,) for q in ships.post.values() for m in q)


def test_a_loop_that_can_do_nothing_lets_its_thread_sleep(fleet):
    """Exchanges are due, but it has left: only others can change anything."""
    ships = fleet(2, rate=2.0)
    one = ships.ranks[0]
    one.ledger.retired = True
    ships.run(30.0)
    assert one.demand.due() > 0
    assert one.loop.seconds_to_next() > 0


def test_a_loop_that_waits_for_a_peer_lets_its_thread_sleep(fleet):
    """Exchanges are due, but first the one that is asked has to answer."""
    ships = fleet(2, rate=2.0)
    ships.ranks[1].wire.deaf = True
    one = ships.ranks[0]
    while one.machine.asking is None:
        ships.run(0.1)
    ships.run(1.0)
    assert one.demand.due() > 0
    assert one.loop.advance() is Pace.POLL
    assert one.loop.seconds_to_next() > 0
