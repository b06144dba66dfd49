"""The loop: when it looks, when it gives up, whom it tells."""

import math

import numpy as np
import pytest

from acidmpi.clocks import ManualClock
from acidmpi.errors import ConfigError, DeadlineExceeded, RemoteError
from acidmpi.pairing.wire import FAIL, Message, Notice
from acidmpi.parallel.lanes import HostLane
from acidmpi.parallel.loop import (
    BUSY_SECONDS,
    WAITING_SECONDS,
    AveragingLoop,
)
from acidmpi.progress import Pace


class FakeWire:
    """Remembers what was sent; brings what a test puts in."""

    def __init__(self):
        self.sent, self.inbox = [], []
        self.quiet, self.closed = True, False

    def send(self, peer, kind, notice, text=""):
        self.sent.append((peer, kind, text))

    def receive(self):
        return self.inbox.pop(0) if self.inbox else None

    def close(self):
        self.closed = True


class FakeComm:
    """Three ranks, of which this is number 1; its barrier opens when told."""

    rank, size = 1, 3

    def __init__(self):
        self.open = False

    def Ibarrier(self):
        return self

    def Test(self):
        return self.open


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def wire():
    return FakeWire()


@pytest.fixture
def comm():
    return FakeComm()


@pytest.fixture
def loop(bench, wire, comm, clock):
    return AveragingLoop(
        reduction=bench.reduction,
        plans=[bench.buckets, bench.buckets[::-1]],
        channels=bench.channels,
        wire=wire,
        closing=comm,
        handover=bench.handover,
        lane=HostLane(),
        clock=clock,
        deadline_seconds=10.0,
        hot_seconds=1e-3,
    )


def advance(loop):
    """Look until nothing more happens."""
    seen = -1
    while loop.activity != seen:
        seen = loop.activity
        pace = loop.advance()
    return pace


def complete_a_step(bench, loop):
    bench.give(*range(6))
    for stage in range(2):
        advance(loop)
        for number in range(3):
            bench.channels[stage].deliver(number)
    advance(loop)


def test_an_idle_loop_has_nothing_due(loop):
    assert advance(loop) is Pace.IDLE
    assert loop.seconds_to_next() == math.inf


def test_it_looks_rarely_while_the_caller_computes(bench, loop, clock):
    bench.give(5, 4)
    assert advance(loop) is Pace.POLL
    assert loop.seconds_to_next() == BUSY_SECONDS
    assert loop.advance() is Pace.POLL


def test_it_looks_at_once_while_the_caller_waits_and_bytes_move(bench, loop, clock):
    bench.give(*range(6))
    bench.handover.awaited = True
    advance(loop)
    assert loop.advance() is Pace.HOT
    clock.advance(2e-3)  # nothing has moved: other ranks are late
    assert loop.advance() is Pace.POLL
    assert loop.seconds_to_next() == WAITING_SECONDS
    bench.channels[0].moved += 1
    loop.advance()
    assert loop.advance() is Pace.HOT


def test_a_step_is_over_when_every_bucket_is(bench, loop):
    complete_a_step(bench, loop)
    assert bench.handover.over
    assert loop.buckets == 3
    assert bench.reduction.calls[0] == ("encode", (5, 4))
    loop.restart(1)
    assert bench.handover.step == 1
    assert loop.compressing_seconds > 0.0


def test_the_next_step_has_the_buckets_of_its_phase(bench, loop):
    complete_a_step(bench, loop)
    loop.restart(1)
    bench.give(1, 0)
    advance(loop)
    assert bench.reduction.calls[-1] == ("encode", (1, 0))


def test_a_wait_for_others_has_a_deadline(bench, loop, clock):
    clock.advance(1000.0)  # a long computation is nobody's fault
    advance(loop)
    bench.give(5, 4)
    advance(loop)
    clock.advance(9.0)
    bench.channels[0].moved += 1
    loop.advance()
    clock.advance(9.0)
    loop.advance()
    clock.advance(2.0)
    with pytest.raises(
        DeadlineExceeded, match="10 s in message 1 of bucket 0 of 3 in step 0"
    ):
        loop.advance()


def test_a_failure_here_is_told_to_all_others(bench, loop, wire):
    def explode(indices, gradients, step):
        raise ZeroDivisionError("planted")

    bench.reduction.reduce = explode
    bench.give(5, 4)
    with pytest.raises(ZeroDivisionError) as caught:
        loop.advance()
    loop.abandon(caught.value)
    text = "ZeroDivisionError: planted"
    assert wire.sent == [(0, FAIL, text), (2, FAIL, text)]
    assert loop.ended
    assert not loop.clean
    assert wire.closed
    assert bench.handover.failure is caught.value
    assert loop.advance() is Pace.POLL


def test_a_failure_elsewhere_is_raised_and_not_told_again(bench, loop, wire):
    wire.inbox.append(Message(2, FAIL, Notice(), "planted"))
    with pytest.raises(RemoteError, match="rank 2 failed: planted") as caught:
        loop.advance()
    loop.abandon(caught.value)
    assert wire.sent == []
    with pytest.raises(RemoteError):
        bench.give(0)


def test_a_failure_of_the_caller_is_raised_in_the_loop(bench, loop):
    bench.handover.fail(ValueError("planted"))
    with pytest.raises(ValueError, match="planted"):
        loop.advance()


def test_the_first_failure_is_told(bench, loop, wire):
    """A caller that closes with an error does so in the middle of a step."""
    bench.handover.fail(KeyError("planted"))
    loop.abandon(ConfigError("close() must come between two steps"))
    assert {text for _, _, text in wire.sent} == {"KeyError: 'planted'"}


def test_ranks_leave_together(bench, loop, comm, wire, clock):
    bench.handover.end()
    advance(loop)
    assert not loop.ended
    assert loop.seconds_to_next() == BUSY_SECONDS
    comm.open = True
    loop.advance()
    assert loop.ended
    assert loop.clean
    assert wire.closed


def test_a_rank_that_leaves_alone_meets_its_deadline(bench, loop, clock):
    bench.handover.end()
    advance(loop)
    clock.advance(11.0)
    with pytest.raises(DeadlineExceeded, match=r"close\(\)"):
        loop.advance()


def test_nobody_leaves_in_the_middle_of_a_step(bench, loop):
    bench.handover.put(0, np.zeros(2))
    bench.handover.end()
    with pytest.raises(ConfigError, match="in the middle of step 0"):
        loop.advance()
