"""The governor never allows more than the rates it knows of, and trusts nothing old."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.dynamics.governor import LOST_INTERVALS, OLD_INTERVALS, Governor
from acidmpi.errors import ConfigError

AT_ONE = acid_coefficients(207.67, 0.984)
RATES = st.lists(st.tuples(st.floats(0, 4), st.booleans()), min_size=1)


def released(rate=1.0, asked=1.0):
    governor = Governor(AT_ONE, asked)
    governor.heartbeat(rate, everyone_exchanged=True)
    return governor


def test_starts_as_the_baseline_until_everyone_has_exchanged():
    governor = Governor(AT_ONE, 1.0)
    assert governor.coefficients(0.0) == BASELINE
    governor.heartbeat(1.0, everyone_exchanged=False)
    assert governor.coefficients(0.0) == BASELINE
    governor.heartbeat(1.0, everyone_exchanged=True)
    assert governor.coefficients(0.0) == AT_ONE
    governor.heartbeat(1.0, everyone_exchanged=False)
    assert governor.coefficients(0.0) == AT_ONE


class Eager(Governor):
    """Planted fault: follows the measured rate up at once, and past the asked one."""

    def heartbeat(self, measured_rate, everyone_exchanged):
        self._rate = measured_rate


def check_rates(make, beats, asked):
    governor = make(AT_ONE, asked)
    ready = False
    for measured, everyone in beats:
        before = governor.rate if ready else math.inf
        ready = ready or everyone
        governor.heartbeat(measured, everyone)
        assert governor.rate <= min(asked, measured)
        assert governor.rate <= before + 0.1 * asked + 1e-12
        assert ready or governor.rate == 0
        assert governor.coefficients(0.0).eta <= AT_ONE.eta * min(asked, measured)


@given(RATES, st.floats(0, 4))
def test_never_above_the_rates_known_and_slow_to_rise(beats, asked):
    check_rates(Governor, beats, asked)


@pytest.mark.parametrize(
    "beats", [[(2.0, True)], [(0.1, True), (1.0, True)], [(0.5, False)]]
)
def test_rates_catch_eagerness(beats):
    with pytest.raises(AssertionError):
        check_rates(Eager, beats, 1.0)


def test_comes_back_within_ten_heartbeats():
    governor = released()
    governor.heartbeat(0.0, everyone_exchanged=True)
    assert governor.coefficients(0.0) == BASELINE
    for _ in range(10):
        governor.heartbeat(1.0, everyone_exchanged=True)
    assert governor.coefficients(0.0).eta == pytest.approx(AT_ONE.eta)


def test_measured_rate_scales_eta_alone():
    found = released(rate=0.5).coefficients(1.0)
    assert found == AT_ONE._replace(eta=AT_ONE.eta * 0.5)


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0, 0.0])
def test_what_is_not_a_rate_is_not_known(rate):
    assert released(rate).coefficients(0.0) == BASELINE


def test_old_heartbeats_halve_then_stop():
    governor = released()
    assert governor.coefficients(OLD_INTERVALS - 0.1) == AT_ONE
    old = governor.coefficients(OLD_INTERVALS)
    assert old == AT_ONE._replace(alpha_tilde=AT_ONE.alpha_tilde / 2)
    for age in (LOST_INTERVALS, math.inf, math.nan):
        assert governor.coefficients(age) == BASELINE
    assert governor.coefficients(0.0) == AT_ONE


def test_halving_stops_at_one_half():
    at_one = acid_coefficients(1.2, 1.0)
    governor = Governor(at_one, 1.0)
    governor.heartbeat(1.0, everyone_exchanged=True)
    assert governor.coefficients(OLD_INTERVALS).alpha_tilde == 0.5


@given(RATES)
def test_baseline_stays_the_baseline(beats):
    governor = Governor(BASELINE, 1.0)
    for beat in beats:
        governor.heartbeat(*beat)
        assert governor.coefficients(0.0) == BASELINE


@pytest.mark.parametrize("asked", [-1.0, math.nan, math.inf])
def test_what_is_refused(asked):
    with pytest.raises(ConfigError, match="comm_rate"):
        Governor(AT_ONE, asked)
