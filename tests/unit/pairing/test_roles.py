"""The protocol of roles, rule by rule; all interleavings are in `test_exploration`."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from acidmpi.pairing.messages import Kind, Send
from acidmpi.pairing.roles import RolesMachine


def machine(active, neighbours=(1, 3, 5), weights=(1.0, 1.0, 2.0)):
    return RolesMachine(neighbours, weights, np.random.default_rng(0), active=active)


def accept(peer):
    return (Send(peer, Kind.ACCEPT),)


def test_an_active_rank_asks_and_counts_the_exchange():
    one = machine(True)
    ((peer, kind),) = one.start()
    assert (kind, one.asking, one.can_start) == (Kind.REQUEST, peer, False)
    assert one.receive(peer, Kind.ACCEPT) == ()
    assert (one.matched, one.started, one.asking) == (peer, True, None)
    assert one.finish() == ()
    assert one.can_start


def test_a_passive_rank_never_asks_and_answers_in_order():
    one = machine(False)
    assert not one.can_start
    assert one.receive(5, Kind.REQUEST) == accept(5)
    assert (one.matched, one.started) == (5, False)
    assert one.receive(3, Kind.REQUEST) == one.receive(1, Kind.REQUEST) == ()
    assert one.finish() == accept(3)
    assert one.finish() == accept(1)
    assert one.finish() == ()
    assert one.matched is None


def test_a_retired_passive_rank_goes_on_accepting():
    one = machine(False)
    one.receive(5, Kind.REQUEST)
    one.receive(3, Kind.REQUEST)
    one.retire()
    assert not one.settled
    assert one.finish() == accept(3)
    one.finish()
    assert one.settled
    assert one.receive(1, Kind.REQUEST) == accept(1)


def test_a_retired_active_rank_still_waits_for_its_answer():
    one = machine(True)
    ((peer, _),) = one.start()
    one.retire()
    assert not one.settled
    one.receive(peer, Kind.ACCEPT)
    one.finish()
    assert one.settled
    assert not one.can_start


def test_the_draw_goes_by_weights_and_may_repeat():
    one, drawn = machine(True), []
    for _ in range(4000):
        ((peer, _),) = one.start()
        drawn.append(peer)
        one.receive(peer, Kind.ACCEPT)
        one.finish()
    counts = Counter(drawn)
    assert counts[5] / 4000 == pytest.approx(0.5, abs=0.04)
    assert counts[1] / 4000 == pytest.approx(0.25, abs=0.035)
    repeated = sum(a == b for a, b in pairwise(drawn)) / 3999
    assert repeated == pytest.approx(0.25 + 2 / 16, abs=0.04)


@pytest.mark.parametrize(
    ("active", "kind"),
    [(True, Kind.REQUEST), (True, Kind.BUSY), (False, Kind.ACCEPT), (False, Kind.BUSY)],
)
def test_what_the_other_role_would_send_is_a_fault(active, kind):
    with pytest.raises(RuntimeError, match="rank 3 sent"):
        machine(active).receive(3, kind)


def test_a_rank_without_neighbours_is_never_due():
    assert not machine(True, (), ()).can_start
