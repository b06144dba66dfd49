"""Where seconds come from."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock, WallClock


@given(st.floats(-1e6, 1e6), st.lists(st.floats(0, 1e3)))
def test_a_manual_clock_shows_what_it_was_moved_by(start, steps):
    clock, expected = ManualClock(start), start
    for step in steps:
        clock.advance(step)
        expected += step
        assert clock.now() == expected == clock.now()


@pytest.mark.parametrize("step", [-1e-12, -1.0])
def test_a_manual_clock_cannot_go_back(step):
    clock = ManualClock(3.0)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(step)
    assert clock.now() == 3.0


def test_the_wall_clock_goes_on_and_never_back():
    clock = WallClock()
    seen = [clock.now() for _ in range(1000)]
    assert seen == sorted(seen)
    began = clock.now()
    time.sleep(0.02)
    assert 0.019 < clock.now() - began < 60.0
