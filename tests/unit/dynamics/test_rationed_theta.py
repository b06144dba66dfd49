"""Theta that waits for exchanges: bounded by them, otherwise the plain integral."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.timebase import RationedTheta

STEPS = st.lists(
    st.tuples(st.sampled_from(["time", "exchange", "eta"]), st.floats(0, 3)),
    max_size=60,
)


def play(theta, steps):
    """Theta after each step, and the exchanges made until then."""
    now, exchanges = 0.0, 0
    for kind, amount in steps:
        if kind == "time":
            now += amount
        elif kind == "eta":
            theta.set_eta(amount, now)
        else:
            theta.count_exchange()
            exchanges += 1
        yield theta.at(now), exchanges


@given(STEPS)
def test_it_grows_and_never_past_its_rations(steps):
    last = 0.0
    for value, exchanges in play(RationedTheta(0.1, 8.0), steps):
        assert last <= value <= 0.1 * (4.0 + exchanges) + 1e-12
        last = value


@given(STEPS)
def test_without_a_bound_it_is_the_plain_integral(steps):
    eta, integral = 0.0, 0.0
    played = play(RationedTheta(math.inf), steps)
    for (kind, amount), (value, _) in zip(steps, played, strict=True):
        integral += eta * amount if kind == "time" else 0.0
        eta = amount if kind == "eta" else eta
        assert value == pytest.approx(integral, rel=1e-12, abs=1e-12)


def test_it_stands_still_while_exchanges_stall_and_saves_no_more_than_its_reserve():
    theta = RationedTheta(0.1, 10.0)
    theta.set_eta(1.0, 0.0)
    assert theta.at(100.0) == pytest.approx(0.5)
    theta.count_exchange()
    assert theta.at(200.0) == pytest.approx(0.6)
    for _ in range(1000):
        theta.count_exchange()
    assert theta.at(1000.0) == pytest.approx(0.6 + 1.0)


def test_at_the_rate_asked_for_little_is_lost():
    generator = np.random.default_rng(0)
    theta, now, rate, at_one = RationedTheta(0.035), 0.0, 1.0, 0.035
    theta.set_eta(at_one * rate, 0.0)
    for _ in range(20_000):
        now += generator.exponential() / rate
        theta.at(now)
        theta.count_exchange()
    assert 0.9 < theta.at(now) / (at_one * rate * now) <= 1.0
