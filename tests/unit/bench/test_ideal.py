"""The fitted decay is the true one, and ideal exchanges decay as theory has it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.bench.ideal import ideal_decay
from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.dynamics.decay import decay, rounding_floor
from acidmpi.topology.make import make_topology
from acidmpi.topology.spectrum import spectrum


@given(
    rate=st.floats(0.001, 1.0),
    start=st.floats(1e-3, 1e3),
    times=st.lists(st.floats(0, 100), min_size=2, max_size=20, unique_by=round),
)
def test_an_exponential_has_its_own_decay(rate, start, times):
    distances = [start * math.exp(-rate * t) for t in times]
    assert decay(times, distances, 0.0) == pytest.approx(rate, rel=1e-6, abs=1e-9)


def test_noise_below_the_floor_is_not_seen():
    times = np.arange(100.0)
    distances = np.exp(-0.5 * times) + 1e-9
    assert decay(times, distances, 1e-6) == pytest.approx(0.5, rel=1e-2)
    assert decay(times, distances, 0.0) < 0.4
    assert math.isnan(decay(times, distances, 10.0))


def test_the_floor_is_far_below_the_start_and_above_rounding():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    rounding = (x.astype(np.float64) - x.astype(np.float16)) ** 2
    assert rounding.sum() < rounding_floor(x, "float16") < 1e-2 * (x**2).sum()


@pytest.mark.parametrize(("accelerated", "expected"), [(False, 0.077), (True, 0.232)])
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_ring_of_16_decays_as_the_design_says(accelerated, expected, rate):
    ring = make_topology("ring", 16)
    chi = spectrum(ring)
    constants = acid_coefficients(*chi, rate=rate) if accelerated else BASELINE
    times = list(np.linspace(20, 100, 40) / rate)
    found = ideal_decay(ring, rate, constants, times, np.random.default_rng(5))
    assert found == pytest.approx(rate * expected, rel=0.15)
