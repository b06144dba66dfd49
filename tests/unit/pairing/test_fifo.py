import pytest

from acidmpi.pairing.fifo import FifoMachine
from acidmpi.pairing.messages import Kind, Send


def sends(kind, *peers):
    return tuple(Send(peer, kind) for peer in peers)


def machine(rank=4):
    return FifoMachine(rank, (1, 2, 7))


def test_a_due_rank_that_knows_nobody_announces_and_waits():
    one = machine()
    assert one.start() == sends(Kind.FREE, 1, 2, 7)
    assert one.asking is None
    assert not one.can_start


def test_a_waiting_rank_accepts_and_both_count():
    one = machine()
    one.start()
    assert one.receive(2, Kind.REQUEST) == sends(Kind.ACCEPT, 2)
    assert (one.matched, one.started) == (2, True)


def test_a_rank_that_is_not_due_refuses_and_remembers():
    one = machine()
    assert one.receive(2, Kind.REQUEST) == sends(Kind.BUSY, 2)
    assert one.start() == sends(Kind.REQUEST, 2)
    one.receive(2, Kind.ACCEPT)
    assert (one.matched, one.started) == (2, True)


def test_who_announced_first_is_asked_first():
    one = machine()
    for source in (7, 1, 2):
        one.receive(source, Kind.FREE)
    one.receive(7, Kind.FREE)  # again: it was matched in between
    assert one.start() == sends(Kind.REQUEST, 1)


def test_a_refused_rank_announces_and_asks_on_upwards():
    one = machine()
    for source in (1, 2, 7):
        one.receive(source, Kind.FREE)
    one.start()
    assert one.receive(1, Kind.BUSY) == sends(Kind.FREE, 2) + sends(Kind.REQUEST, 7)
    assert one.receive(7, Kind.BUSY) == ()
    assert one.receive(2, Kind.REQUEST) == sends(Kind.ACCEPT, 2)


@pytest.mark.parametrize(("source", "asked"), [(7, True), (1, False)])
def test_of_two_that_wait_the_lower_one_asks(source, asked):
    one = machine()
    one.start()
    expected = sends(Kind.REQUEST, source) if asked else ()
    assert one.receive(source, Kind.FREE) == expected


def test_lower_ranks_refused_while_asking_are_told():
    one = machine()
    one.start()
    one.receive(7, Kind.FREE)
    assert one.receive(1, Kind.REQUEST) == sends(Kind.BUSY, 1)
    assert one.receive(7, Kind.BUSY) == sends(Kind.FREE, 1)


def test_crossing_requests_are_a_match():
    one = machine()
    one.receive(1, Kind.FREE)
    one.start()
    assert one.receive(1, Kind.REQUEST) == ()
    assert (one.matched, one.started) == (1, True)


def test_a_retired_rank_is_open_again_after_each_exchange():
    one = machine()
    assert one.retire() == sends(Kind.OPEN, 1, 2, 7)
    assert one.retire() == ()
    assert one.receive(1, Kind.REQUEST) == sends(Kind.ACCEPT, 1)
    assert not one.started
    one.receive(7, Kind.REQUEST)
    assert one.finish() == sends(Kind.OPEN, 1, 7)


def test_a_waiting_rank_asks_whoever_opens():
    one = machine()
    one.start()
    assert one.receive(1, Kind.OPEN) == sends(Kind.REQUEST, 1)


def test_an_open_neighbour_is_asked_when_nobody_waits():
    one = machine()
    one.receive(1, Kind.OPEN)
    one.receive(7, Kind.FREE)
    assert one.start() == sends(Kind.REQUEST, 7)
    one.receive(7, Kind.ACCEPT)
    one.finish()
    assert one.start() == sends(Kind.REQUEST, 1)


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.BUSY, 77])
def test_a_message_that_the_protocol_excludes_is_an_error(kind):
    with pytest.raises(RuntimeError, match="asked nobody"):
        machine().receive(1, kind)


def test_without_neighbours_there_is_nothing_to_start():
    assert not FifoMachine(0, ()).can_start
