"""The transport contract on the loopback transport, and faults that it must find."""

import numpy as np
import pytest

from acidmpi.errors import PeerFailed
from acidmpi.progress import Pace
from acidmpi.testing.transports import CONTRACT, run_together, takes_back
from acidmpi.transport.loopback import LoopbackHub, LoopbackTransport


def run(routine, first, second):
    run_together([routine(first, 0, 1), routine(second, 1, 0)])


@pytest.mark.parametrize("routine", CONTRACT, ids=lambda r: r.__name__)
def test_loopback_keeps_the_contract(routine):
    hub = LoopbackHub(2)
    run(routine, hub.transport(0), hub.transport(1))


class Meeting:
    """Two sides of one process wait for each other."""

    def __init__(self):
        self.here = 0

    def __call__(self):
        self.here += 1
        while self.here < 2:
            yield Pace.POLL


def taken_back(first, second):
    meet = Meeting()
    sides = [takes_back(first, 0, 1, meet), takes_back(second, 1, 0, meet)]
    run_together(sides)


def test_loopback_takes_back_what_one_side_has_begun():
    hub = LoopbackHub(2)
    taken_back(hub.transport(0), hub.transport(1))


class Hoarding(LoopbackTransport):
    """A planted fault: what the peer has withdrawn is left where it is."""

    def drain(self, peer, sizes):
        pass


def test_what_is_not_drained_is_found():
    hub = LoopbackHub(2)
    with pytest.raises((AssertionError, ValueError)):
        taken_back(hub.transport(0), Hoarding(hub, 1))


def test_a_dead_peer_ends_the_wait():
    hub = LoopbackHub(2)
    pending = hub.transport(0).post(1, np.ones(3), np.zeros(3))
    assert not pending.test()
    hub.kill(1)
    with pytest.raises(PeerFailed, match="rank 1"):
        pending.test()


def test_what_came_before_the_death_is_kept():
    hub = LoopbackHub(2)
    hub.transport(1).post(0, np.full(3, 5.0), np.zeros(3))
    hub.kill(1)
    received = np.zeros(3)
    assert hub.transport(0).post(1, np.ones(3), received).test()
    assert (received == 5.0).all()


class Reversing(LoopbackTransport):
    """A planted fault: the newest message first."""

    def post(self, peer, send, receive):
        self._hub.sent[self._rank, peer].appendleft(send.tobytes())
        pending = super().post(peer, send[:0], receive)
        self._hub.sent[self._rank, peer].pop()
        return pending


class Late(LoopbackTransport):
    """A planted fault: the message is read from the buffer after completion."""

    def post(self, peer, send, receive):
        pending = super().post(peer, send, receive)
        self._hub.sent[self._rank, peer].pop()
        self._hub.sent[self._rank, peer].append(memoryview(send).cast("B"))
        return pending


@pytest.mark.parametrize("fault", [Reversing, Late])
def test_the_contract_finds_the_fault(fault):
    def broken(routine):
        hub = LoopbackHub(2)
        try:
            run(routine, fault(hub, 0), fault(hub, 1))
        except (AssertionError, ValueError):
            return True
        return False

    assert any(broken(routine) for routine in CONTRACT)
