from math import inf

import pytest

from acidmpi.pairing.events import Meeting
from acidmpi.pairing.messages import Kind, Send
from acidmpi.pairing.schedule import ScheduleMachine


def machine(*peers):
    meetings = (Meeting(0.5 + k, peer) for k, peer in enumerate(peers))
    return ScheduleMachine((1, 2, 3), meetings)


def request(peer):
    return (Send(peer, Kind.REQUEST),)


def test_a_rank_asks_the_peer_of_its_next_event():
    one = machine(2, 1)
    assert one.next_time == 0.5
    assert one.start() == request(2)
    assert one.asking == 2
    assert one.next_time == 1.5
    assert one.receive(2, Kind.REQUEST) == ()
    assert (one.matched, one.started) == (2, True)


def test_an_early_request_is_kept_until_its_event():
    one = machine(1, 2)
    assert one.receive(2, Kind.REQUEST) == ()
    assert one.matched is None
    one.start()
    one.receive(1, Kind.REQUEST)
    one.finish()
    assert one.start() == request(2)
    assert (one.matched, one.started) == (2, True)


def test_a_request_for_the_next_event_may_come_during_this_one():
    one = machine(1, 1)
    one.start()
    one.receive(1, Kind.REQUEST)
    assert one.receive(1, Kind.REQUEST) == ()
    one.finish()
    assert one.matched is None
    one.start()
    assert one.matched == 1


def test_a_retired_rank_answers_in_order_of_arrival():
    one = machine(1)
    for source in (3, 2):
        one.receive(source, Kind.REQUEST)
    assert one.retire() == request(3)
    assert (one.matched, one.started) == (3, False)
    assert one.receive(1, Kind.REQUEST) == ()
    assert one.finish() == request(2)
    assert one.finish() == request(1)
    assert one.finish() == ()
    assert one.settled


def test_a_rank_that_retires_while_asking_keeps_its_word_first():
    one = machine(1)
    one.start()
    one.receive(2, Kind.REQUEST)
    assert one.retire() == ()
    assert not one.settled
    assert one.receive(1, Kind.REQUEST) == ()
    assert one.matched == 1
    assert one.finish() == request(2)


def test_a_list_that_ends_leaves_nothing_to_start():
    one = machine()
    assert one.next_time == inf
    assert not one.can_start


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.BUSY, Kind.FREE])
def test_a_message_that_the_protocol_excludes_is_an_error(kind):
    with pytest.raises(RuntimeError, match="the same `pairing`"):
        machine(1).receive(1, kind)
