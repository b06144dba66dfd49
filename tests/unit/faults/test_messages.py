"""Late messages: after their time, in their order, and never lost."""

import time

import pytest

from acidmpi.faults.drill import Drill
from acidmpi.faults.messages import LateWire
from acidmpi.faults.plan import Plan


class Wire:
    def __init__(self):
        self.sent_to, self.out, self.quiet, self.received = [0, 0, 0], [], True, 7

    def send(self, peer, *message):
        self.out.append((peer, *message))

    def receive(self):
        return None


class Transport:
    name = "plain"

    def post(self, peer, send, receive):
        return self

    def test(self):
        return True


@pytest.fixture
def seconds(monkeypatch):
    """A clock that the test moves: `seconds[0]`."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_nothing_overtakes_on_a_channel(seconds):
    delays = {1: 5.0, 2: 1.0, 3: 0.0, 4: 0.0}
    wire = Wire()
    late = LateWire(wire, delays.__getitem__)
    late.send(1, "first")
    late.send(1, "second")
    late.send(2, "elsewhere")
    late.send(1, "third", "text")
    assert wire.out == [(2, "elsewhere")]
    assert late.sent_to == [0, 3, 1]
    assert late.sent == 4
    assert not late.quiet
    seconds[0] += 4.9
    assert late.receive() is None
    assert len(wire.out) == 1
    seconds[0] += 0.2
    assert late.quiet
    assert wire.out[1:] == [(1, "first"), (1, "second"), (1, "third", "text")]
    assert late.received == 7


def test_a_chunk_is_late(seconds):
    plan = Plan.of("rank=0 at=chunk:2- do=delay:1~2")
    transport = Drill(plan, 0, 1).transport(Transport())
    first, second = (transport.post(1, None, None) for _ in range(2))
    assert first.test()
    assert not second.test()
    seconds[0] += 0.99
    assert not second.test()
    seconds[0] += 1.02
    assert second.test()
    assert transport.name == "plain"


def test_delays_follow_the_seed():
    def drawn(seed):
        plan = Plan.of("rank=0 at=message:1- do=delay:0~1")
        drill = Drill(plan, 0, 1, seed)
        return [drill._delays(drill._of("message"))(n) for n in range(5)]

    assert drawn(1) == drawn(1) != drawn(2)
