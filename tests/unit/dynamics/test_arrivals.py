"""Poisson arrivals: the right law, however often looked at, across changes of rate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.arrivals import PoissonArrivals
from acidmpi.errors import ConfigError


def arrivals(rate=1.0, seed=0, start=0.0):
    return PoissonArrivals(rate, np.random.default_rng(seed), start)


class KeepsItsGap(PoissonArrivals):
    """Planted fault: the next arrival stays where the old rate had put it."""

    def set_rate(self, rate):
        planned = self.next_time if hasattr(self, "_rate") else None
        super().set_rate(rate)
        if planned is not None:
            self._left = (planned - self._time) * rate


def check_counts(make, rates, looks):
    """Counts over units of changing rate have a Poisson law's mean and variance."""
    generator = np.random.default_rng(5)
    counts = []
    for _ in range(2000):
        process = make(rates[0], generator)
        total = 0
        for unit, rate in enumerate(rates):
            process.set_rate(rate)
            total += sum(
                process.until(unit + look / looks) for look in range(1, looks + 1)
            )
        counts.append(total)
    mean = sum(rates)
    assert np.mean(counts) == pytest.approx(mean, abs=4 * math.sqrt(mean / 2000))
    assert np.var(counts) == pytest.approx(mean, rel=0.15)


def test_counts_follow_the_law_across_changes():
    check_counts(PoissonArrivals, [1.0, 4.0, 0.5], looks=4)


def test_law_catches_gaps_that_stay_as_they_were():
    with pytest.raises(AssertionError):
        check_counts(KeepsItsGap, [1.0, 4.0, 0.5], looks=4)


@given(
    st.integers(0, 1000),
    st.lists(st.floats(0.01, 10), min_size=1, max_size=20),
    st.floats(0.1, 5),
)
def test_looking_changes_nothing(seed, gaps, rate):
    times = np.cumsum(gaps)
    often, once = arrivals(rate, seed), arrivals(rate, seed)
    counted = sum(often.until(time) for time in times)
    assert counted == once.until(times[-1])
    assert often.next_time == pytest.approx(once.next_time)


@given(st.integers(0, 1000), st.floats(0.1, 5))
def test_next_time_is_the_moment_of_the_next_arrival(seed, rate):
    process = arrivals(rate, seed)
    moment = process.next_time
    assert process.until(moment * (1 - 1e-9)) == 0
    assert process.until(moment * (1 + 1e-9)) >= 1


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_rate_stretches_what_is_left(seed, factor):
    process = arrivals(1.0, seed)
    half = process.next_time / 2
    process.until(half)
    process.set_rate(factor)
    assert process.next_time == pytest.approx(half + half / factor)


@given(st.integers(0, 1000))
def test_seed_decides(seed):
    times = np.linspace(0.3, 9, 30)
    one, two = arrivals(2.0, seed), arrivals(2.0, seed)
    assert [one.until(time) for time in times] == [two.until(time) for time in times]


def test_rate_zero_stands_still_and_goes_on():
    process = arrivals(0.0)
    assert process.until(1e9) == 0
    assert process.next_time == math.inf
    process.set_rate(1.0)
    assert process.until(1e9 + 1000) == pytest.approx(1000, abs=150)


def test_time_does_not_go_back():
    process = arrivals(5.0)
    counted = process.until(10.0)
    assert process.until(3.0) == 0
    assert counted + process.until(20.0) == arrivals(5.0).until(20.0)


def test_start():
    assert arrivals(5.0, start=100.0).until(110.0) == arrivals(5.0).until(10.0)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_what_is_refused(rate):
    with pytest.raises(ConfigError, match="rate must be finite"):
        arrivals(rate)
    with pytest.raises(ConfigError, match="rate must be finite"):
        arrivals().set_rate(rate)


class CountingGenerator:
    """Says how often it was asked for a gap."""

    def __init__(self):
        self._real = np.random.default_rng(0)
        self.gaps = 0

    def exponential(self):
        self.gaps += 1
        return self._real.exponential()

    def poisson(self, mean):
        return self._real.poisson(mean)


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_look_after_a_standstill_takes_no_longer_than_another(rate):
    generator = CountingGenerator()
    process = PoissonArrivals(rate, generator)
    assert process.until(1000.0) == pytest.approx(min(1000 * rate, 1e18), rel=1e-3)
    assert generator.gaps < 10
    assert process.until(1000.0 + 0.5 / rate) in (0, 1, 2, 3)


def test_many_arrivals_follow_the_same_law():
    generator = np.random.default_rng(5)
    processes = [PoissonArrivals(1.0, generator) for _ in range(2000)]
    counts = [process.until(2000.0) for process in processes]
    assert np.mean(counts) == pytest.approx(2000, abs=4)
    assert np.var(counts) == pytest.approx(2000, rel=0.15)
    gaps = [process.next_time - 2000.0 for process in processes]
    assert np.mean(gaps) == pytest.approx(1.0, abs=0.1)
