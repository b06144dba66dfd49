"""Units and theta: continuous and monotone whatever is set, at whatever moment."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.timebase import RationedTheta, TimeBase
from acidmpi.errors import ConfigError

MOMENT = st.floats(0, 1000)
SECONDS = st.floats(1e-3, 1e3)
ETA = st.floats(0, 2)


@given(MOMENT)
def test_stands_still_until_a_unit_is_known(now):
    base = TimeBase()
    assert base.units(now) == 0
    assert base.seconds_per_unit is None
    base.set_unit(2.0, now)
    assert base.units(now) == 0
    assert base.units(now + 6) == pytest.approx(3)
    assert base.seconds_per_unit == 2.0


@given(st.lists(st.tuples(MOMENT, SECONDS | st.none()), min_size=1))
def test_units_never_go_back_and_never_jump(steps):
    base = TimeBase()
    before = 0.0
    for now, unit in steps:
        units = base.units(now)
        assert units >= before
        if unit is not None:
            base.set_unit(unit, now)
            assert base.units(now) == units
        before = units


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=10))
def test_units_are_the_sum_of_the_stretches(stretches):
    base, now, expected = TimeBase(), 0.0, 0.0
    for unit, length in stretches:
        base.set_unit(unit, now)
        now += length
        expected += length / unit
        assert base.units(now) == pytest.approx(expected)


@given(st.lists(st.tuples(ETA, SECONDS), min_size=1, max_size=10))
def test_theta_is_the_integral_of_eta(stretches):
    theta, units, expected = RationedTheta(), 0.0, 0.0
    for eta, length in stretches:
        theta.set_eta(eta, units)
        units += length
        expected += eta * length
        assert theta.at(units) == pytest.approx(expected)


def test_no_eta_keeps_theta_bit_for_bit():
    theta = RationedTheta()
    assert theta.at(5.0) == 0.0
    theta.set_eta(0.3, 5.0)
    reached = theta.at(7.0)
    theta.set_eta(0.0, 7.0)
    assert theta.at(1e9) == reached


@pytest.mark.parametrize("unit", [0.0, -1.0, math.nan, math.inf])
def test_a_unit_is_a_positive_time(unit):
    with pytest.raises(ConfigError, match="positive number of seconds"):
        TimeBase().set_unit(unit, 0.0)


@pytest.mark.parametrize("eta", [-1.0, math.nan, math.inf])
def test_eta_is_a_rate(eta):
    with pytest.raises(ConfigError, match="eta must be finite"):
        RationedTheta().set_eta(eta, 0.0)
