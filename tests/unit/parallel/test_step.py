"""Messages of a step leave in one order, whatever becomes ready or arrives when."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acidmpi.errors import ConfigError
from acidmpi.parallel.lanes import HostLane
from acidmpi.parallel.step import StepRun


def run_of(bench, kind=StepRun):
    return kind(
        0, bench.buckets, bench.reduction, bench.channels, bench.handover, HostLane()
    )


def advance(run):
    while run.advance():
        pass


def test_nothing_happens_before_a_bucket_is_complete(bench):
    run = run_of(bench)
    bench.give(5, 3, 1)
    assert not run.advance()
    assert run.waiting is None
    bench.give(4)
    assert run.advance()
    assert bench.posted(0) == [6.0]
    assert run.waiting == "message 1 of bucket 0 of 3 in step 0"


def test_a_bucket_that_is_ready_early_waits_for_its_turn(bench):
    run = run_of(bench)
    bench.give(1, 0, 3, 2)
    advance(run)
    assert bench.posted(0) == []
    bench.give(4, 5)
    advance(run)
    assert bench.posted(0) == [6.0, 4.0, 2.0]


def test_an_answer_that_comes_early_waits_for_its_turn(bench):
    run = run_of(bench)
    bench.give(*range(6))
    advance(run)
    bench.channels[0].deliver(1)
    bench.channels[0].deliver(2)
    advance(run)
    assert bench.posted(1) == []
    bench.channels[0].deliver(0)
    advance(run)
    assert bench.posted(1) == [6.0, 4.0, 2.0]
    assert not run.over
    for number in (2, 1, 0):
        bench.channels[1].deliver(number)
    advance(run)
    assert run.over
    assert run.waiting is None
    assert run.compressing_seconds > 0.0


def test_a_bucket_with_fewer_messages_lets_the_next_pass(bench):
    bench.reduction.short = (bench.buckets[0].indices, bench.buckets[1].indices)
    run = run_of(bench)
    bench.give(*range(6))
    advance(run)
    for number in range(3):
        bench.channels[0].deliver(number)
    advance(run)
    assert bench.posted(1) == [2.0]
    bench.channels[1].deliver(0)
    advance(run)
    assert run.over
    assert [name for name, _ in bench.reduction.calls].count("decode") == 1


class ByReadiness(StepRun):
    """A planted fault: whatever is ready goes first."""

    def advance(self):
        for stage in range(len(self._turn)):
            for bucket, _ in enumerate(self.buckets):
                done = self._done = getattr(self, "_done", set())
                if (bucket, stage) in done or not self._ready(bucket, stage):
                    continue
                done.add((bucket, stage))
                self._turn[stage] += 1
                self._resume(bucket, stage)
                return True
        return False

    def _ready(self, bucket, stage):
        if stage == 0:
            return self._handover.complete(bucket)
        pending = self._pending[bucket]
        return (
            pending is not None and pending.test() and (bucket, stage - 1) in self._done
        )


def order_of_messages(bench, kind, draw):
    """Let gradients and answers come in the order that `draw` chooses."""
    run = run_of(bench, kind)
    waiting = [("gradient", index, 0) for index in range(6)]
    known = [0, 0]
    while waiting:
        what, number, stage = waiting.pop(draw(len(waiting)))
        if what == "gradient":
            bench.give(number)
        else:
            bench.channels[stage].deliver(number)
        advance(run)
        for stage, channel in enumerate(bench.channels):
            new = range(known[stage], len(channel.posted))
            waiting += [("answer", number, stage) for number in new]
            known[stage] = len(channel.posted)
    assert run.over
    return bench.posted(0), bench.posted(1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_order_is_the_same_in_every_course_of_events(bench, data):
    run_bench(bench)
    posted = order_of_messages(
        bench, StepRun, lambda n: data.draw(st.integers(0, n - 1))
    )
    assert posted == ([6.0, 4.0, 2.0], [6.0, 4.0, 2.0])


def run_bench(bench):
    """Empty a bench that hypothesis uses again."""
    bench.handover.begin(0, bench.buckets)
    for channel in bench.channels:
        channel.posted.clear()


def test_order_of_readiness_is_found(bench):
    posted = order_of_messages(bench, ByReadiness, lambda n: 0)
    assert posted[0] == [2.0, 4.0, 6.0]


def test_too_many_messages_are_refused(bench):
    bench.channels.pop()
    run = run_of(bench)
    bench.give(4, 5)
    advance(run)
    bench.channels[0].deliver(0)
    with pytest.raises(ConfigError, match="1 stages may send as many"):
        advance(run)
