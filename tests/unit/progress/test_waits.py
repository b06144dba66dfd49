"""Waiting: sleeps that double, deadlines that can be renewed, polite loops."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock
from acidmpi.errors import DeadlineExceeded
from acidmpi.progress import Backoff, Deadline, Pace, available_cores, until


@given(
    st.floats(1e-6, 1e-2),
    st.floats(1, 1e4),
    st.floats(1, 3),
    st.lists(st.booleans(), max_size=40),
)
def test_sleeps_grow_up_to_the_bound_and_start_again(shortest, times, growth, resets):
    longest = shortest * times
    backoff, expected = Backoff(shortest, longest, growth), shortest
    for reset in resets:
        if reset:
            backoff.reset()
            expected = shortest
        assert backoff.next() == pytest.approx(expected)
        expected = min(growth * expected, longest)


@given(st.floats(1e-3, 1e3), st.lists(st.floats(0, 2), min_size=1, max_size=20))
def test_a_deadline_passes_when_its_time_is_over(seconds, shares):
    clock = ManualClock(7.0)
    deadline = Deadline(seconds, clock, "a test")
    elapsed = 0.0
    for share in shares:
        clock.advance(share * seconds)
        elapsed += share
        if abs(elapsed - 1.0) > 1e-6:
            assert deadline.passed == (elapsed > 1.0)


def test_progress_renews_a_deadline():
    clock = ManualClock()
    deadline = Deadline(5.0, clock, "a test")
    for _ in range(10):
        clock.advance(4.0)
        deadline.check()
        deadline.renew()
    clock.advance(5.1)
    with pytest.raises(DeadlineExceeded):
        deadline.check()


def test_a_missed_deadline_says_what_and_what_to_do():
    clock = ManualClock()
    deadline = Deadline(0.5, clock, "a test of waiting")
    clock.advance(1.0)
    with pytest.raises(
        DeadlineExceeded, match=r"0\.5 s in a test of waiting; .*deadline_seconds"
    ):
        deadline.check()


@pytest.mark.parametrize("pace", Pace)
def test_until_yields_its_pace_and_then_ends(pace):
    answers = iter([False, False, True])
    deadline = Deadline(1.0, ManualClock(), "a test")
    assert list(until(lambda: next(answers), deadline, pace)) == [pace, pace]


def test_until_never_waits_for_what_is_ready():
    clock = ManualClock()
    deadline = Deadline(1.0, clock, "a test")
    clock.advance(10.0)
    assert list(until(lambda: True, deadline, Pace.POLL)) == []


def test_until_meets_the_deadline():
    clock = ManualClock()
    waiting = until(lambda: False, Deadline(1.0, clock, "a test"), Pace.POLL)
    next(waiting)
    clock.advance(1.1)
    with pytest.raises(DeadlineExceeded):
        next(waiting)


def test_cores_are_those_of_this_process():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_cores_are_counted_where_nobody_tells(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cores() >= 1
