"""When exchanges are due: by a clock, by own gradients, by a list, in logical time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock
from acidmpi.dynamics.arrivals import PoissonArrivals
from acidmpi.pairing.events import Meeting
from acidmpi.worker.demand import (
    LOOKS_PER_UNIT,
    MOST_DUE,
    SHORTEST_LOOK_SECONDS,
    GradientDemand,
    LogicalDemand,
    PoissonDemand,
    ScheduledDemand,
)
from acidmpi.worker.units import LogicalUnits, WallUnits


class Poisson:
    """A demand with a clock and a lag that a test moves."""

    def __init__(self, rate=1.0, seed=0, unit=1.0, patience=8.0):
        self.clock = ManualClock()
        self.units = WallUnits(self.clock, unit)
        self.behind = -math.inf
        arrivals = PoissonArrivals(rate, np.random.default_rng(seed))
        self.demand = PoissonDemand(arrivals, self.units, self.lag, patience)

    def lag(self):
        return max(self.behind, -1e9)


def test_due_follows_the_poisson_clock():
    due = []
    for seed in range(300):
        poisson = Poisson(rate=0.7, seed=seed, unit=0.5)
        poisson.clock.advance(5.0)  # ten units, seven arrivals expected
        due.append(poisson.demand.due())
    assert np.mean(due) == pytest.approx(7.0, abs=4 * math.sqrt(7 / 300))
    assert np.var(due) == pytest.approx(7.0, rel=0.35)


@given(st.lists(st.floats(0, 2), max_size=20), st.integers(0, 1000))
def test_what_was_served_is_due_no_more(steps, seed):
    """However often one looks, as many can be served as have arrived."""
    poisson = Poisson(seed=seed)
    reference = PoissonArrivals(1.0, np.random.default_rng(seed))
    expected = 0
    for step in steps:
        poisson.clock.advance(step)
        expected += reference.until(poisson.clock.now())
        assert bool(poisson.demand.due()) == bool(expected)
        assert poisson.demand.due() <= expected
        poisson.demand.begun()
        if expected:
            poisson.demand.served()
            expected -= 1
    for left in range(expected, 0, -1):
        assert 1 <= poisson.demand.due() <= left
        poisson.demand.served()
    assert poisson.demand.due() == 0


def test_a_stall_brings_no_storm():
    poisson = Poisson()
    poisson.clock.advance(1e4)
    assert poisson.demand.due() == MOST_DUE


def test_a_rank_that_is_behind_its_own_gradients_starts_more():
    poisson = Poisson(rate=0.0, patience=8.0)
    for behind, due in ((8.0, 0), (8.5, 1), (20.0, 12), (-30.0, 0)):
        poisson.behind = behind
        assert poisson.demand.due() == due
    poisson.demand.served()
    assert poisson.demand.due() == 0, "more than was due may be made"


def test_nothing_is_due_before_its_announced_time():
    poisson = Poisson(rate=0.4, unit=2.0)
    for _ in range(50):
        due = poisson.demand.due()
        sleep = poisson.demand.seconds_to_next()
        assert 0.0 <= sleep <= 2.0 / LOOKS_PER_UNIT
        poisson.clock.advance(0.99 * sleep)
        assert poisson.demand.due() == due
        poisson.clock.advance(0.02 * sleep + 1e-9)


def test_without_a_unit_nothing_is_announced():
    units = WallUnits(ManualClock())
    arrivals = PoissonArrivals(1.0, np.random.default_rng(0))
    demand = PoissonDemand(arrivals, units, lambda: 0.0, 8.0)
    assert demand.due() == 0
    assert demand.seconds_to_next() == math.inf


TIMES = (0.5, 1.0, 1.25, 3.0)


def meetings():
    return iter([Meeting(time, number) for number, time in enumerate(TIMES)])


def test_a_schedule_is_due_when_its_time_has_come():
    clock = ManualClock()
    demand = ScheduledDemand(meetings(), WallUnits(clock, 1.0))
    assert demand.due() == 0
    clock.advance(1.0)
    for _ in range(2):
        assert demand.due() == demand.due() == 1
        demand.begun()
        demand.served()
    assert demand.due() == 0
    clock.advance(100.0)
    assert demand.due() == 1
    assert demand.seconds_to_next() == math.inf


def test_a_rank_that_cannot_follow_its_schedule_makes_no_list_of_what_it_owes():
    made = iter(range(10**9))
    clock = ManualClock()
    endless = (Meeting(1e-6 * number, 0) for number in made)
    demand = ScheduledDemand(endless, WallUnits(clock, 1.0))
    for served in range(10):
        clock.advance(0.1)
        assert demand.due() == 1
        demand.served()
        assert next(made) <= 2 * served + 3


def test_in_logical_time_each_event_happens_at_its_own_moment():
    units = LogicalUnits()
    demand = LogicalDemand(meetings(), units)
    seen = []
    for gradient in range(1, 5):
        units.move_to(float(gradient))
        demand.extend(gradient + 1.0)
        while demand.due():
            demand.begun()
            seen.append((gradient, units.now()))
            demand.served()
    # An event at a gradient's very moment comes after it; one that is late comes now.
    assert seen == [(1, 1.0), (1, 1.0), (1, 1.25), (3, 3.0)]


def test_events_before_the_first_gradient_are_due_at_the_start():
    units = LogicalUnits()
    demand = LogicalDemand(meetings(), units)
    demand.extend(1.0)
    assert demand.due() == 1
    demand.begun()
    assert units.now() == 0.5


def test_no_meetings_are_no_demand():
    units = LogicalUnits()
    demand = LogicalDemand(iter(()), units)
    demand.extend(1e9)
    assert demand.due() == 0


def test_an_active_rank_owes_one_exchange_for_each_gradient():
    made, units = [0], WallUnits(ManualClock(), 0.3)
    demand = GradientDemand(lambda: made[0], units, active=True)
    assert demand.by_gradients
    assert demand.due() == 0
    made[0] = 3
    for left in (2, 1, 0):
        demand.begun()
        demand.served()
        assert demand.due() == left
    assert demand.seconds_to_next() == pytest.approx(0.3 / LOOKS_PER_UNIT)


def test_a_passive_rank_owes_none_but_looks_up():
    clock = ManualClock()
    demand = GradientDemand(lambda: 5, WallUnits(clock), active=False)
    assert (demand.due(), demand.by_gradients) == (0, False)
    assert demand.seconds_to_next() == math.inf
    fast = GradientDemand(lambda: 5, WallUnits(clock, 1e-6), active=False)
    assert fast.seconds_to_next() == SHORTEST_LOOK_SECONDS
