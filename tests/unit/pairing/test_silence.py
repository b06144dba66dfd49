"""The handshake among ranks that fall silent or die: what one says, asks, and forgets."""

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.pairing.fifo import FifoMachine
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.messages import Kind, Send
from acidmpi.pairing.schedule import ScheduleMachine


def machine(rank=0, neighbours=(1, 2, 3), seed=0):
    weights = (1.0,) * len(neighbours)
    return HandshakeMachine(rank, neighbours, weights, np.random.default_rng(seed))


def asked(one):
    """Start, and say who was asked."""
    (send,) = one.start()
    assert send.kind == Kind.REQUEST
    return send.peer


def exchange(one, peer):
    """An exchange that `peer` has asked for."""
    one.receive(peer, Kind.REQUEST)
    one.finish()


def late(one):
    """Who was asked, set aside, and says nothing yet."""
    silent = asked(one)
    one.set_aside()
    return silent


def test_a_rank_that_is_cancelled_takes_it_back_and_refuses_nobody():
    one = machine()
    one.receive(2, Kind.REQUEST)
    assert one.matched == 2
    assert one.receive(2, Kind.CANCEL) == (Send(2, Kind.DROPPED),)
    assert one.matched is None
    assert one.can_start
    assert one.refused == 0


def test_a_silent_rank_is_set_aside_and_others_are_asked():
    one = machine()
    silent = asked(one)
    assert one.set_aside() == ()
    assert one.aside == {silent}
    assert one.asking is None
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
    late(one)
    assert not one.can_start
    assert one.patience() == 0.0
    assert one.receive(5, Kind.BUSY) == ()
    assert one.can_start
    assert one.refused == 0


def test_a_late_answer_of_yes_is_taken_by_a_free_rank_and_called_off_by_a_busy_one():
    free, busy = machine(), machine()
    mine, theirs = late(free), late(busy)
    asked(busy)
    assert free.receive(mine, Kind.ACCEPT) == ()
    assert (free.matched, free.started) == (mine, True)
    assert busy.receive(theirs, Kind.ACCEPT) == (Send(theirs, Kind.CANCEL),)
    assert busy.matched is None
    assert not busy.aside


def test_who_has_begun_in_vain_is_not_asked_before_it_has_taken_that_back():
    one = machine(neighbours=(1, 2))
    silent = late(one)
    other = asked(one)
    one.receive(silent, Kind.ACCEPT)
    one.receive(other, Kind.BUSY)
    for _ in range(20):
        assert asked(one) == other
        one.receive(other, Kind.BUSY)
    one.retire()
    assert not one.settled
    assert one.receive(silent, Kind.DROPPED) == ()
    assert one.settled


def test_what_is_no_longer_offered_is_called_off_by_a_free_rank_too():
    one = machine()
    silent = late(one)
    one.outdate(silent)
    assert one.receive(silent, Kind.ACCEPT) == (Send(silent, Kind.CANCEL),)
    one.receive(silent, Kind.DROPPED)
    while asked(one) != silent:
        one.receive(one.asking, Kind.BUSY)
    assert one.receive(silent, Kind.ACCEPT) == ()  # a new question
    assert one.matched == silent


def test_a_silent_rank_that_asks_crosses_the_old_question():
    free, busy = machine(7, (3,)), machine(7, (3, 9))
    late(free)
    assert free.receive(3, Kind.REQUEST) == ()
    assert (free.matched, free.started, free.aside) == (3, False, frozenset())
    while asked(busy) != 3:
        busy.receive(9, Kind.BUSY)
    busy.set_aside()
    asked(busy)
    assert busy.receive(3, Kind.REQUEST) == (Send(3, Kind.CANCEL),)
    assert not busy.aside


def test_two_ranks_that_both_call_off_a_crossing_owe_nothing():
    low, high = machine(3, (7, 1)), machine(7, (3, 9))
    for one, peer in ((low, 7), (high, 3)):
        while asked(one) != peer:
            one.receive(one.asking, Kind.BUSY)
        one.set_aside()
        asked(one)
    assert low.receive(7, Kind.REQUEST) == (Send(7, Kind.CANCEL),)
    assert high.receive(3, Kind.REQUEST) == (Send(3, Kind.CANCEL),)
    assert low.receive(7, Kind.CANCEL) == high.receive(3, Kind.CANCEL) == ()
    for one in (low, high):
        one.receive(one.asking, Kind.BUSY)
        one.retire()
        assert one.settled


def test_the_end_waits_for_the_answer_of_a_rank_set_aside_or_its_death():
    for ending in (lambda one, peer: one.receive(peer, Kind.BUSY), machine_remove):
        one = machine()
        silent = late(one)
        one.retire()
        assert not one.settled
        ending(one, silent)
        assert one.settled


def machine_remove(one, peer):
    one.remove(peer)


def asking(one):
    while asked(one) != 2:
        one.receive(one.asking, Kind.BUSY)


def accepting(one):
    one.receive(2, Kind.REQUEST)


def matched(one):
    asking(one)
    one.receive(2, Kind.ACCEPT)


def aside(one):
    asking(one)
    one.set_aside()


def owing(one):
    aside(one)
    one.receive(1, Kind.REQUEST)
    one.receive(2, Kind.ACCEPT)
    one.finish()


@pytest.mark.parametrize("before", [asking, accepting, matched, aside, owing])
def test_a_death_frees_whoever_waited_and_counts_nothing(before):
    one = machine()
    before(one)
    assert one.remove(2) == ()
    assert (one.matched, one.started, one.asking) == (None, False, None)
    assert not one.aside
    assert one.can_start


def test_a_death_elsewhere_leaves_the_exchange_at_hand():
    one = machine()
    matched(one)
    one.remove(1)
    assert (one.matched, one.started) == (2, True)


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.ACCEPT, Kind.CANCEL, Kind.BUSY])
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


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.BUSY, Kind.CANCEL, Kind.DROPPED])
def test_a_message_that_the_protocol_excludes_is_an_error(kind):
    with pytest.raises(RuntimeError, match=r"rank 1 sent .* asked nobody"):
        machine().receive(1, kind)


@pytest.mark.parametrize(
    "other",
    [
        FifoMachine(0, (1,)),
        ScheduleMachine((1,), iter(())),
    ],
)
def test_the_other_protocols_refuse_to_lose_a_peer(other):
    for verb in (
        other.set_aside,
        lambda: other.outdate(1),
        lambda: other.remove(1),
        lambda: other.rewire((), ()),
    ):
        with pytest.raises(ConfigError, match="only the handshake"):
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
