"""The confirmed handshake of one rank: what it says, whom it asks, and what it forgets."""

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.pairing.confirmed import ConfirmedMachine
from acidmpi.pairing.fifo import FifoMachine
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.messages import Kind, Send
from acidmpi.pairing.schedule import ScheduleMachine


def machine(rank=0, neighbours=(1, 2, 3), seed=0):
    weights = (1.0,) * len(neighbours)
    return ConfirmedMachine(rank, neighbours, weights, np.random.default_rng(seed))


def asked(one):
    """Start, and say who was asked."""
    (send,) = one.start()
    assert send.kind == Kind.REQUEST
    return send.peer


def exchange(one, peer):
    """An exchange that `peer` has asked for."""
    one.receive(peer, Kind.REQUEST)
    one.receive(peer, Kind.CONFIRM)
    one.finish()


def test_an_accepted_rank_confirms_and_counts():
    one = machine()
    peer = asked(one)
    assert one.awaited == peer
    assert one.receive(peer, Kind.ACCEPT) == (Send(peer, Kind.CONFIRM),)
    assert (one.matched, one.started, one.awaited) == (peer, True, None)


def test_a_rank_that_accepts_is_matched_once_confirmed():
    one = machine()
    assert one.receive(2, Kind.REQUEST) == (Send(2, Kind.ACCEPT),)
    assert (one.matched, one.asking, one.awaited) == (None, None, 2)
    assert not one.can_start
    assert one.receive(3, Kind.REQUEST) == (Send(3, Kind.BUSY),)
    assert one.receive(2, Kind.CONFIRM) == ()
    assert (one.matched, one.started) == (2, False)


def test_a_rank_that_is_cancelled_is_free_and_refuses_nobody():
    one = machine()
    one.receive(2, Kind.REQUEST)
    assert one.receive(2, Kind.CANCEL) == ()
    assert one.can_start
    assert one.refused == 0


def test_of_two_requests_that_cross_the_leaders_stands_in_turn():
    low, high = machine(0, (1,)), machine(1, (0,))
    ends = [low, high]
    counted = []
    for _ in range(4):
        for one in ends:
            one.start()
        answers = [one.receive(1 - k, Kind.REQUEST) for k, one in enumerate(ends)]
        (leader,) = [k for k in (0, 1) if not answers[k]]
        assert answers[1 - leader] == (Send(leader, Kind.ACCEPT),)
        ends[leader].receive(1 - leader, Kind.ACCEPT)
        ends[1 - leader].receive(leader, Kind.CONFIRM)
        assert [one.matched for one in ends] == [1, 0]
        counted += [k for k in (0, 1) if ends[k].started]
        for one in ends:
            one.finish()
    assert counted == [0, 1, 0, 1]


def test_a_silent_rank_is_set_aside_and_others_are_asked():
    one = machine()
    silent = asked(one)
    assert one.set_aside() == ()
    assert one.aside == {silent}
    assert (one.asking, one.awaited) == (None, None)
    others = set()
    for _ in range(50):
        others.add(asked(one))
        one.receive(one.asking, Kind.BUSY)
    assert others == {1, 2, 3} - {silent}


def test_whoever_asks_meanwhile_is_accepted():
    one = machine()
    silent = asked(one)
    one.set_aside()
    other = next(peer for peer in one.neighbours if peer != silent)
    assert one.receive(other, Kind.REQUEST) == (Send(other, Kind.ACCEPT),)


def test_with_all_neighbours_aside_there_is_nobody_to_ask():
    one = machine(neighbours=(5,))
    asked(one)
    one.set_aside()
    assert not one.can_start
    assert one.patience() == 0.0
    assert one.receive(5, Kind.BUSY) == ()
    assert one.can_start
    assert one.refused == 0


def test_a_late_answer_of_yes_is_taken_by_a_free_rank_and_cancelled_by_a_busy_one():
    free, busy = machine(), machine()
    for one in (free, busy):
        silent = asked(one)
        one.set_aside()
    asked(busy)
    assert free.receive(silent, Kind.ACCEPT) == (Send(silent, Kind.CONFIRM),)
    assert (free.matched, free.started) == (silent, True)
    assert busy.receive(silent, Kind.ACCEPT) == (Send(silent, Kind.CANCEL),)
    assert busy.matched is None
    assert not busy.aside


def test_a_silent_rank_that_asks_crosses_the_old_question():
    follower = machine(7, (3, 9))
    while asked(follower) != 3:
        follower.receive(9, Kind.BUSY)
    follower.set_aside()
    assert follower.receive(3, Kind.REQUEST) == (Send(3, Kind.ACCEPT),)
    assert not follower.aside
    leader = machine(3, (7,))
    asked(leader)
    leader.set_aside()
    assert leader.receive(7, Kind.REQUEST) == ()
    assert leader.aside == {7}


def test_the_end_waits_for_the_answer_of_a_rank_set_aside_or_its_death():
    for ending in (lambda one, peer: one.receive(peer, Kind.BUSY), machine_remove):
        one = machine()
        silent = asked(one)
        one.set_aside()
        one.retire()
        assert not one.settled
        ending(one, silent)
        assert one.settled


def machine_remove(one, peer):
    one.remove(peer)


def asking(one):
    while asked(one) != 2:
        one.receive(one.asking, Kind.BUSY)


def promised(one):
    one.receive(2, Kind.REQUEST)


def matched(one):
    asking(one)
    one.receive(2, Kind.ACCEPT)


def aside(one):
    asking(one)
    one.set_aside()


@pytest.mark.parametrize("before", [asking, promised, matched, aside])
def test_a_death_frees_whoever_waited_and_counts_nothing(before):
    one = machine()
    before(one)
    assert one.remove(2) == ()
    assert (one.matched, one.started, one.awaited) == (None, False, None)
    assert not one.aside
    assert one.can_start


def test_a_death_elsewhere_leaves_the_exchange_at_hand():
    one = machine()
    matched(one)
    one.remove(1)
    assert (one.matched, one.started) == (2, True)


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.ACCEPT, Kind.CONFIRM, Kind.BUSY])
def test_the_dead_are_not_heard_and_not_asked(kind):
    one = machine()
    one.receive(2, Kind.REQUEST)
    one.remove(2)
    assert one.receive(2, kind) == ()
    for _ in range(50):
        assert asked(one) != 2
        one.receive(one.asking, Kind.BUSY)


def test_new_neighbours_are_asked_and_strangers_answered():
    one = machine(neighbours=(1, 2))
    assert one.receive(9, Kind.REQUEST) == (Send(9, Kind.ACCEPT),)
    one.receive(9, Kind.CANCEL)
    one.remove(1)
    one.rewire((2, 9), (1.0, 3.0))
    assert one.neighbours == (2, 9)
    seen = set()
    for _ in range(50):
        seen.add(asked(one))
        one.receive(one.asking, Kind.BUSY)
    assert seen == {2, 9}


def test_new_weights_are_those_of_the_draw():
    one = machine(neighbours=(1, 2))
    one.rewire((3, 4), (1.0, 3.0))
    count = {3: 0, 4: 0}
    for _ in range(4000):
        count[asked(one)] += 1
        one.receive(one.asking, Kind.BUSY)
    assert count[4] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.BUSY, Kind.CONFIRM, Kind.CANCEL])
def test_a_message_that_the_protocol_excludes_is_an_error(kind):
    with pytest.raises(RuntimeError, match=r"rank 1 sent .* asked nobody"):
        machine().receive(1, kind)


@pytest.mark.parametrize(
    "other",
    [
        FifoMachine(0, (1,)),
        ScheduleMachine((1,), iter(())),
        HandshakeMachine(0, (1,), (1.0,), np.random.default_rng()),
    ],
)
def test_the_other_protocols_refuse_to_lose_a_peer(other):
    for verb in (
        other.set_aside,
        lambda: other.remove(1),
        lambda: other.rewire((), ()),
    ):
        with pytest.raises(ConfigError, match="only the confirmed handshake"):
            verb()


def test_patience_after_refusals_as_in_the_handshake():
    one = machine()
    assert one.patience() == 0.0
    exchange(one, 1)
    for refusals in (1, 2):
        asked(one)
        one.receive(one.asking, Kind.BUSY)
        assert 2.0 * refusals <= one.patience() <= 4.0 * refusals
    exchange(one, 1)
    assert one.patience() == 0.0
