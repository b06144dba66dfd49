"""Limits of waits: in their order, a part of one number, and never within the usual."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.progress.limits import SLOWER, Limits, Usual

SECONDS = st.floats(1e-6, 1e4)


def test_without_anything_measured_they_follow_from_one_number():
    limits = Limits(300.0)
    assert limits.patience_seconds == pytest.approx(1.0)
    assert limits.stall_seconds == pytest.approx(10.0)
    assert limits.deadline_seconds == 300.0
    larger = Limits(3000.0)
    assert larger.patience_seconds == pytest.approx(10.0)
    assert larger.stall_seconds == pytest.approx(100.0)


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_patience_comes_before_the_stall_and_the_stall_before_the_end(
    deadline, answer, exchange, beat
):
    limits = Limits(deadline)
    limits.answers.add(answer)
    limits.exchanges.add(exchange)
    limits.rounds.add(beat)
    assert deadline <= limits.deadline_seconds
    assert 2 * limits.patience_seconds <= limits.stall_seconds * 1.000001
    assert 2 * limits.stall_seconds <= limits.deadline_seconds * 1.000001


@given(SECONDS, SECONDS)
def test_what_is_usual_does_not_count_as_a_stall(deadline, exchange):
    limits = Limits(deadline)
    limits.exchanges.add(exchange)
    assert limits.stall_seconds >= SLOWER * exchange * 0.999999
    assert limits.patience_seconds >= SLOWER / 2 * exchange * 0.999999
    assert limits.deadline_seconds >= 4 * SLOWER * exchange


@given(SECONDS, SECONDS)
def test_a_usual_heartbeat_ends_no_run(deadline, beat):
    limits = Limits(deadline)
    limits.rounds.add(beat)
    assert limits.round_seconds >= max(deadline, SLOWER * beat)
    assert limits.deadline_seconds == deadline, "it says nothing of a peer"


def test_a_long_time_is_forgotten_slowly():
    usual = Usual()
    usual.add(10.0)
    usual.add(0.1)
    assert usual.seconds == pytest.approx(9.8)
    for _ in range(1000):
        usual.add(0.1)
    assert usual.seconds == pytest.approx(0.1)


def test_one_standstill_is_no_habit_but_slower_steps_are():
    usual = Usual()
    usual.add(0.01)
    usual.add(14.0)
    assert usual.seconds == pytest.approx(0.02)
    for _ in range(12):
        usual.add(14.0)
    assert usual.seconds == pytest.approx(14.0)
