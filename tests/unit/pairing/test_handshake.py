from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.pairing import choice, handshake
from acidmpi.pairing.handshake import HandshakeMachine, State
from acidmpi.pairing.messages import Kind, Send


def machine(rank=0, neighbours=(1, 2, 3), weights=None, seed=0):
    weights = (1.0,) * len(neighbours) if weights is None else weights
    return HandshakeMachine(rank, neighbours, weights, np.random.default_rng(seed))


def exchange(machine, peer):
    """An exchange that `peer` has asked for."""
    machine.receive(peer, Kind.REQUEST)
    machine.finish()


def test_a_due_rank_asks_one_neighbour():
    one = machine()
    (send,) = one.start()
    assert send.kind == Kind.REQUEST
    assert one.asking == send.peer
    assert not one.can_start


def test_a_free_rank_accepts_and_counts_nothing():
    one = machine()
    assert one.receive(2, Kind.REQUEST) == (Send(2, Kind.ACCEPT),)
    assert (one.matched, one.started) == (2, False)


def test_an_accepted_rank_counts_its_start():
    one = machine()
    one.start()
    peer = one.asking
    assert one.receive(peer, Kind.ACCEPT) == ()
    assert (one.matched, one.started, one.asking) == (peer, True, None)


def test_a_refused_rank_is_free_again_and_knows_how_often():
    one = machine()
    for refusals in (1, 2, 3):
        one.start()
        assert one.receive(one.asking, Kind.BUSY) == ()
        assert one.refused == refusals
        assert one.can_start
    exchange(one, 1)
    assert one.refused == 0


@given(st.sampled_from(["asking", "matched"]), st.integers(1, 3))
def test_a_busy_rank_says_so_at_once(occupation, source):
    one = machine()
    if occupation == "asking":
        one.start()
        source = next(peer for peer in one.neighbours if peer != one.asking)
    else:
        one.receive(3, Kind.REQUEST)  # `source` may be the matched peer itself
    before = (one.matched, one.asking)
    assert one.receive(source, Kind.REQUEST) == (Send(source, Kind.BUSY),)
    assert (one.matched, one.asking) == before


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 6))
def test_of_two_starts_that_cross_one_is_counted_in_turn(first, second, times):
    if first == second:
        second += 1
    ends = {
        first: machine(first, (second,)),
        second: machine(second, (first,)),
    }
    counted = []
    for _ in range(times):
        for one in ends.values():
            one.start()
        for rank, one in ends.items():
            assert one.receive(one.asking, Kind.REQUEST) == ()
            assert one.matched == sum(ends) - rank
        (starter,) = [rank for rank, one in ends.items() if one.started]
        counted.append(starter)
        for one in ends.values():
            one.finish()
    turns = sorted(ends) * times
    assert counted == turns[:times]


def test_the_last_peer_is_left_out_of_the_next_draw():
    one = machine()
    for _ in range(100):
        exchange(one, 2)
        one.start()
        assert one.asking != 2
        one.receive(one.asking, Kind.BUSY)


def test_the_only_neighbour_is_asked_again():
    one = machine(neighbours=(5,))
    exchange(one, 5)
    assert one.start() == (Send(5, Kind.REQUEST),)


def test_neighbours_are_drawn_by_weight():
    one = machine(weights=(1.0, 2.0, 5.0))
    asked = Counter()
    for _ in range(8000):
        one.start()
        asked[one.asking] += 1
        one.receive(one.asking, Kind.BUSY)
    assert [asked[peer] / 8000 for peer in (1, 2, 3)] == pytest.approx(
        [1 / 8, 2 / 8, 5 / 8], abs=0.02
    )


def test_draws_come_from_the_given_generator_alone():
    def asked(seed):
        one = machine(seed=seed)
        peers = []
        for _ in range(30):
            one.start()
            peers.append(one.asking)
            one.receive(one.asking, Kind.BUSY)
        return peers

    assert asked(7) == asked(7) != asked(8)


def test_whoever_was_refused_last_is_asked_first():
    one = machine()
    one.receive(1, Kind.REQUEST)
    for source in (2, 3):
        one.receive(source, Kind.REQUEST)
    one.finish()
    assert one.patience() == 0.0
    assert one.start() == (Send(3, Kind.REQUEST),)


def test_a_caller_is_forgotten_with_the_next_match():
    one = machine()
    one.receive(1, Kind.REQUEST)
    one.receive(3, Kind.REQUEST)
    one.finish()
    exchange(one, 2)
    assert handshake.candidates(one._state, one.neighbours) == (1, 3)


def test_patience_grows_with_refusals_and_ends_with_a_match():
    one = machine()
    assert one.patience() == 0.0
    for refusals in range(1, 12):
        one.start()
        one.receive(one.asking, Kind.BUSY)
        times = min(refusals, choice.MOST_REFUSALS)
        assert 2.0 * times <= one.patience() <= 4.0 * times
    exchange(one, 1)
    assert one.patience() == 0.0


def test_a_rank_between_two_listens_to_one_side_once_asking_was_in_vain():
    middle = machine(4, (3, 5))

    def wish_for(side):
        exchange(middle, 8 - side)
        return middle.patience()

    assert wish_for(3) == 0.0
    middle.start()
    middle.receive(3, Kind.BUSY)
    assert 2.0 <= wish_for(3) <= 4.0
    assert wish_for(5) == 0.0
    wish_for(3)
    middle.start()
    middle.receive(3, Kind.ACCEPT)
    middle.finish()
    assert wish_for(3) == 0.0


def test_on_a_ring_every_edge_has_one_end_that_listens():
    size = 7
    for i in range(size):
        j = (i + 1) % size
        listening = 0
        for rank, peer in ((i, j), (j, i)):
            beyond = (2 * rank - peer) % size
            one = machine(rank, tuple(sorted((peer, beyond))))
            exchange(one, beyond)
            one.start()
            one.receive(peer, Kind.BUSY)
            exchange(one, beyond)
            listening += one.patience() > 0
        assert listening == 1


def test_a_retired_rank_goes_on_accepting_and_starts_no_more():
    one = machine()
    assert one.retire() == ()
    assert not one.can_start
    assert one.settled
    assert one.receive(1, Kind.REQUEST) == (Send(1, Kind.ACCEPT),)
    assert not one.settled
    one.finish()
    assert one.settled


def test_a_rank_that_retires_with_a_question_open_waits_for_its_answer():
    one = machine()
    one.start()
    one.retire()
    assert not one.settled
    one.receive(one.asking, Kind.BUSY)
    assert one.settled


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.BUSY, Kind.FREE, 77])
def test_a_message_that_the_protocol_excludes_is_an_error(kind):
    with pytest.raises(RuntimeError, match=r"rank 1 sent .* asked nobody"):
        machine().receive(1, kind)


def test_without_neighbours_there_is_nothing_to_start():
    assert not machine(neighbours=()).can_start


def test_states_are_values():
    state = State()
    asking, _ = handshake.start(state, 1)
    assert state == State()
    assert asking.asking == 1
