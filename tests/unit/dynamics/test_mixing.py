"""Mixing in closed form; every property is also shown to catch a planted fault."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.events import mixed
from acidmpi.dynamics.mixing import carried_jump, mixing_weight

THETA = st.floats(0, 3)
VALUE = st.floats(-10, 10)
ALPHA_TILDE = st.floats(0.5, 20)


def check_semigroup(mix, x, x_tilde, first, second):
    twice = mix(*mix(x, x_tilde, first), second)
    np.testing.assert_allclose(mix(x, x_tilde, first + second), twice, atol=1e-12)


def check_keeps_the_sum(mix, x, x_tilde, theta):
    after = mix(x, x_tilde, theta)
    np.testing.assert_allclose(after[0] + after[1], x + x_tilde, atol=1e-13)


def mixed_with_the_new_x(x, x_tilde, theta):
    x = x + mixing_weight(theta) * (x_tilde - x)
    return x, x_tilde + mixing_weight(theta) * (x - x_tilde)


def mixed_by_a_linear_weight(x, x_tilde, theta):
    flow = theta * (x_tilde - x)
    return x + flow, x_tilde - flow


@given(VALUE, VALUE, THETA, THETA)
def test_semigroup(x, x_tilde, first, second):
    check_semigroup(mixed, x, x_tilde, first, second)


def test_semigroup_catches_a_linear_weight():
    with pytest.raises(AssertionError):
        check_semigroup(mixed_by_a_linear_weight, 1.0, 0.0, 0.3, 0.4)


@given(VALUE, VALUE, THETA)
def test_keeps_the_sum(x, x_tilde, theta):
    check_keeps_the_sum(mixed, x, x_tilde, theta)


def test_sum_catches_the_new_value_on_the_right():
    with pytest.raises(AssertionError):
        check_keeps_the_sum(mixed_with_the_new_x, 1.0, 0.0, 0.3)


@given(VALUE, VALUE, THETA)
def test_is_the_solution_of_the_equations(x, x_tilde, theta):
    half_sum, half_gap = (x + x_tilde) / 2, (x - x_tilde) / 2 * math.exp(-2 * theta)
    expected = half_sum + half_gap, half_sum - half_gap
    np.testing.assert_allclose(mixed(x, x_tilde, theta), expected, atol=1e-13)


def check_fixed_point(mix, x, theta):
    assert mix(x, x, theta) == (x, x)


@given(VALUE, THETA)
def test_agreement_is_a_fixed_point_bit_for_bit(x, theta):
    check_fixed_point(mixed, x, theta)


def test_fixed_point_catches_two_rounded_shares():
    def by_two_shares(x, x_tilde, theta):
        away = mixing_weight(theta)
        keep = 1 - away
        return keep * x + away * x_tilde, keep * x_tilde + away * x

    with pytest.raises(AssertionError):
        check_fixed_point(by_two_shares, 1 / 3, 0.15)


@given(VALUE, VALUE)
def test_no_time_changes_no_bit(x, x_tilde):
    assert mixing_weight(0.0) == 0.0
    assert mixed(x, x_tilde, 0.0) == (x, x_tilde)


def test_small_times_do_not_cancel():
    assert mixing_weight(1e-20) == pytest.approx(1e-20, rel=1e-15)
    assert mixing_weight(1e6) == 0.5


@given(st.floats(0, 2), VALUE, VALUE)
def test_negative_time_undoes(theta, x, x_tilde):
    there = mixed(x, x_tilde, theta)
    np.testing.assert_allclose(mixed(*there, -theta), (x, x_tilde), atol=1e-11)


@given(st.floats(-2, 3))
def test_carried_jump_is_the_formula_of_the_design(elapsed):
    alpha, alpha_tilde = 0.5, 7.262
    half_sum, half_gap = (alpha + alpha_tilde) / 2, (alpha - alpha_tilde) / 2
    half_gap *= math.exp(-2 * elapsed)
    expected = half_sum + half_gap, half_sum - half_gap
    assert carried_jump(alpha, alpha_tilde, elapsed) == pytest.approx(expected)


def check_carrying(carry, x, x_tilde, m, alpha_tilde, theta_chunk, theta_state):
    """A jump at the chunk's theta, mixed to the state's, against the carried one."""
    alpha = 0.5
    at_chunk = mixed(x, x_tilde, theta_chunk)
    jumped = at_chunk[0] - alpha * m, at_chunk[1] - alpha_tilde * m
    expected = mixed(*jumped, theta_state - theta_chunk)
    a, b = carry(alpha, alpha_tilde, theta_state - theta_chunk)
    state = mixed(x, x_tilde, theta_state)
    found = state[0] - a * m, state[1] - b * m
    scale = 1 + abs(x) + abs(x_tilde) + alpha_tilde * abs(m)
    growth = math.exp(2 * max(0.0, theta_chunk - theta_state))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale * growth)


@given(VALUE, VALUE, VALUE, ALPHA_TILDE, THETA, THETA)
def test_carrying_equals_jumping_there_and_mixing_on(
    x, x_tilde, m, alpha_tilde, theta_chunk, theta_state
):
    check_carrying(carried_jump, x, x_tilde, m, alpha_tilde, theta_chunk, theta_state)


@pytest.mark.parametrize("theta_state", [0.1, 0.9])
def test_carrying_to_either_side_catches_the_wrong_sign(theta_state):
    def backwards(alpha, alpha_tilde, elapsed):
        return carried_jump(alpha, alpha_tilde, -elapsed)

    check_carrying(carried_jump, 1.0, 2.0, 1.0, 7.0, 0.5, theta_state)
    with pytest.raises(AssertionError):
        check_carrying(backwards, 1.0, 2.0, 1.0, 7.0, 0.5, theta_state)


@given(ALPHA_TILDE, st.floats(-1, 3))
def test_carrying_keeps_what_a_jump_takes_from_the_sum(alpha_tilde, elapsed):
    assert sum(carried_jump(0.5, alpha_tilde, elapsed)) == pytest.approx(
        0.5 + alpha_tilde, rel=1e-14
    )


@given(ALPHA_TILDE)
def test_no_time_carries_nothing_bit_for_bit(alpha_tilde):
    assert carried_jump(0.5, alpha_tilde, 0.0) == (0.5, alpha_tilde)


@given(st.floats(-10, 10))
def test_baseline_is_carried_bit_for_bit(elapsed):
    assert carried_jump(0.5, 0.5, elapsed) == (0.5, 0.5)
