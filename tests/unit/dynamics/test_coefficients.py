"""The paper's constants, and what `safety` and the baseline make of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.errors import ConfigError

CHI_2 = st.floats(0.1, 10)
RATIO = st.floats(1, 1e5)
SHARE = st.floats(0.01, 1)


@pytest.mark.parametrize(
    ("chi_1", "chi_2", "eta", "alpha_tilde"),
    [
        (13.137, 0.938, 0.1425, 1.872),
        (207.67, 0.984, 0.0350, 7.262),
        (63 / 64, 63 / 64, 0.508, 0.5),
    ],
)
def test_reference_values(chi_1, chi_2, eta, alpha_tilde):
    found = acid_coefficients(chi_1, chi_2)
    assert found.eta == pytest.approx(eta, rel=2e-3)
    assert found.alpha == 0.5
    assert found.alpha_tilde == pytest.approx(alpha_tilde, rel=1e-3)


@given(CHI_2, RATIO, SHARE)
def test_safety_keeps_what_the_proof_needs(chi_2, ratio, safety):
    chi_1 = chi_2 * ratio
    eta, _, alpha_tilde = acid_coefficients(chi_1, chi_2, safety)
    assert alpha_tilde >= eta * chi_1 * (1 - 1e-12)
    assert 4 * eta * alpha_tilde * chi_2 <= safety * (1 + 1e-12)


def test_planted_fault_scaling_eta_down_and_alpha_tilde_up():
    chi_1, chi_2 = 200.0, 1.0
    eta, _, alpha_tilde = acid_coefficients(chi_1, chi_2)
    assert 4 * (0.8 * eta) * (alpha_tilde / 0.8) * chi_2 > 0.8


@given(CHI_2, RATIO, SHARE, st.floats(0.01, 100))
def test_rate_scales_eta_alone(chi_2, ratio, safety, rate):
    one = acid_coefficients(chi_2 * ratio, chi_2, safety)
    other = acid_coefficients(chi_2 * ratio, chi_2, safety, rate)
    assert other.eta == pytest.approx(rate * one.eta)
    assert other[1:] == one[1:]


@given(CHI_2, RATIO)
def test_safety_leads_to_the_baseline(chi_2, ratio):
    near = acid_coefficients(chi_2 * ratio, chi_2, safety=1e-9)
    assert near == pytest.approx(BASELINE, abs=1e-5)


@pytest.mark.parametrize(
    "nothing", [{"chi_1": 0.0, "chi_2": 0.0}, {"safety": 0.0}, {"rate": 0.0}]
)
def test_no_mixing_is_the_baseline(nothing):
    assert acid_coefficients(**{"chi_1": 2.0, "chi_2": 1.0} | nothing) == BASELINE


def test_rounding_never_lowers_alpha_tilde_below_alpha():
    chi = 0.9375
    assert acid_coefficients(chi, math.nextafter(chi, 1)).alpha_tilde == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chi_1": math.nan}, "chi_1 must be finite"),
        ({"chi_1": -1.0}, "chi_1 must be finite and not negative, got -1.0"),
        ({"chi_2": math.inf}, "chi_2 must be finite"),
        ({"chi_2": 0.0}, "both 0"),
        ({"safety": -0.1}, "safety must lie between 0"),
        ({"safety": 1.1}, "got 1.1"),
        ({"safety": math.nan}, "got nan"),
        ({"rate": -1.0}, "rate must be finite"),
        ({"rate": math.inf}, "rate must be finite"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        acid_coefficients(**{"chi_1": 2.0, "chi_2": 1.0} | arguments)
