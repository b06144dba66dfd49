"""Time in units: continuous, monotone, and undisturbed by whoever looks meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock
from acidmpi.worker import units as units_module
from acidmpi.worker.units import LogicalUnits, WallUnits

lengths = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(st.floats(0, 100), lengths), max_size=20))
def test_each_second_counts_by_the_unit_of_its_time(turns):
    clock = ManualClock(5.0)
    units, expected, unit = WallUnits(clock, 2.0), 0.0, 2.0
    for seconds, new in turns:
        clock.advance(seconds)
        expected += seconds / unit
        assert units.now() == pytest.approx(expected)
        units.set_unit(new)
        unit = new
        assert units.now() == pytest.approx(expected), "a new unit changes no past"
        assert units.unit_seconds == new


@given(st.integers(0, 5), st.floats(0, 100), lengths)
def test_until_a_unit_is_known_own_gradients_are_time(gradients, seconds, unit):
    clock = ManualClock()
    units = WallUnits(clock)
    for _ in range(gradients):
        units.count_gradient()
        clock.advance(seconds)
    assert units.unit_seconds is None
    assert units.now() == gradients
    units.set_unit(unit)
    units.count_gradient()
    assert units.now() == gradients
    clock.advance(seconds)
    assert units.now() == pytest.approx(gradients + seconds / unit)


def test_a_fixed_unit_counts_from_the_start():
    clock = ManualClock(100.0)
    units = WallUnits(clock, 0.5)
    clock.advance(2.0)
    assert units.now() == 4.0


@given(st.lists(st.floats(0, 1e6)))
def test_logical_time_never_goes_back(moves):
    units, latest = LogicalUnits(), 0.0
    for time in moves:
        units.move_to(time)
        units.count_gradient()
        latest = max(latest, time)
        assert units.now() == latest


# The lock.


def check_nobody_sees_half_a_unit(every_moment, lock=None):
    """The communication loop sets a unit while the compute loop looks at the time."""

    def make():
        clock = ManualClock()
        units = WallUnits(clock, 1.0)
        if lock is not None:
            units._lock = lock
        clock.advance(8.0)
        seen = []

        def check():
            seen.append(units.now())
            clock.advance(1.0)
            seen.append(units.now())
            assert seen == [8.0, 8.0, 10.0]

        return lambda: units.set_unit(0.5), lambda: seen.append(units.now()), check

    every_moment(make)


def test_nobody_sees_half_a_unit(every_moment):
    check_nobody_sees_half_a_unit(every_moment)


def test_a_missing_lock_is_found(every_moment, no_lock):
    with pytest.raises(AssertionError):
        check_nobody_sees_half_a_unit(every_moment, no_lock)


def test_the_clock_is_read_under_the_lock():
    """Two readers cannot overtake each other between the clock and the sum."""
    held = []

    class Watched:
        def now(self):
            held.append(units._lock.locked())
            return 0.0

    units = WallUnits(Watched())
    units.set_unit(1.0)
    units.now()
    assert held == [True, True]
    assert units_module.LogicalUnits().now() == 0.0
