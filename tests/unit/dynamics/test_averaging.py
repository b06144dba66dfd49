"""Pure averaging on rings with ideal Poisson edges: how fast, and how near divergence.

Typical speed is seen in replayed events. The speed of the mean square, which is what
the theory bounds, comes from its exact equations in the Fourier modes of a ring.
"""

import numpy as np
import pytest

from acidmpi.dynamics.coefficients import BASELINE, acid_coefficients
from acidmpi.dynamics.events import Exchange, Reference


def ring_constants(size, safety=1.0):
    chi_1 = 0.5 / np.sin(np.pi / size) ** 2
    return acid_coefficients(chi_1, (size - 1) / size, safety)


def ring_events(size, times, eta, generator):
    """Exchanges on random edges at `times`, one unit of rate 1 for each rank."""
    edges = generator.integers(size, size=len(times))
    return [
        Exchange(int(edge), int(edge + 1) % size, eta * time, eta * time)
        for edge, time in zip(edges, times, strict=True)
    ]


def consensus_distances(size, coefficients, moments, seed, width=16):
    generator = np.random.default_rng(seed)
    reference = Reference(generator.standard_normal((size, width)), coefficients)
    found, before = [], 0.0
    for moment in moments:
        count = generator.poisson(size / 2 * (moment - before))
        times = np.sort(generator.uniform(before, moment, count))
        reference.replay(ring_events(size, times, coefficients.eta, generator))
        reference.flush(coefficients.eta * moment)
        found.append(reference.consensus_distance / width)
        before = moment
    return np.array(found)


def typical_slope(coefficients, size=16, seeds=20):
    moments = np.arange(20.0, 101.0, 20.0)
    slopes = [
        np.polyfit(
            moments, np.log(consensus_distances(size, coefficients, moments, k)), 1
        )
        for k in range(seeds)
    ]
    return -np.median([slope for slope, _ in slopes])


def test_typical_speed_on_a_ring_of_16():
    assert typical_slope(BASELINE) == pytest.approx(0.077, rel=0.1)
    assert typical_slope(ring_constants(16)) == pytest.approx(0.232, rel=0.1)


def moments_matrix(size, coefficients):
    """Generator of the second moments xx, x x_tilde, x_tilde x_tilde of each mode.

    Modes of equal wave number up to sign are one; the constant mode is left out.
    """
    eta, alpha, alpha_tilde = coefficients
    waves = np.arange(1, size // 2 + 1)
    copies = np.where(2 * waves == size, 1, 2)
    squares = 2 - 2 * np.cos(2 * np.pi * waves / size)
    rates = 0.5 * squares
    shape = (len(waves), len(waves))
    still, fading = np.zeros(shape), np.diag(rates)
    mixing = eta * np.eye(len(waves))
    # The mean square of an exchanged difference feeds every mode.
    feed = np.outer(rates, copies * squares / size)
    return np.block(
        [
            [
                -2 * mixing - 2 * alpha * fading + alpha**2 * feed,
                2 * mixing,
                still,
            ],
            [
                mixing - alpha_tilde * fading + alpha * alpha_tilde * feed,
                -2 * mixing - alpha * fading,
                mixing,
            ],
            [
                alpha_tilde**2 * feed,
                2 * mixing - 2 * alpha_tilde * fading,
                -2 * mixing,
            ],
        ]
    )


def mean_square_decay(size, coefficients):
    """Slope of the slowest mean square; negative where it grows."""
    return -np.linalg.eigvals(moments_matrix(size, coefficients)).real.max()


def decay_at_eta_times(factor, size, coefficients):
    return mean_square_decay(size, coefficients._replace(eta=coefficients.eta * factor))


@pytest.mark.parametrize("coefficients", [BASELINE, ring_constants(8)])
def test_moments_agree_with_replayed_events(coefficients):
    size, moment = 8, 4.0
    values, vectors = np.linalg.eig(moments_matrix(size, coefficients))
    start = np.linalg.solve(vectors, np.ones(len(values)))
    modes = (vectors * np.exp(values * moment) @ start).real[: size // 2]
    expected = (modes * [2, 2, 2, 1]).sum() / size
    seen = [
        consensus_distances(size, coefficients, [moment], k, 64) for k in range(200)
    ]
    assert np.mean(seen) == pytest.approx(expected, rel=0.05)


SIZES = (16, 32, 64, 128)


@pytest.mark.parametrize(
    ("safety", "factors"), [(1.0, (6.8, 2.2, 1.5, 1.3)), (0.8, (33, 3.9, 2.6, 2.1))]
)
def test_margins_of_eta_that_the_docstring_states(safety, factors):
    for size, factor in zip(SIZES, factors, strict=True):
        constants = ring_constants(size, safety)
        assert decay_at_eta_times(0.97 * factor, size, constants) > 0
        assert decay_at_eta_times(1.03 * factor, size, constants) < 0


def test_price_of_safety_that_the_docstring_states():
    ratios = [
        mean_square_decay(size, ring_constants(size, 0.8))
        / mean_square_decay(size, ring_constants(size))
        for size in SIZES
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] == pytest.approx(0.98, abs=0.01)
    assert ratios[-1] == pytest.approx(0.90, abs=0.01)


def test_constants_for_twice_the_real_rate_diverge_on_a_ring_of_64():
    constants = ring_constants(64)
    assert mean_square_decay(64, constants) == pytest.approx(0.057, abs=0.001)
    assert decay_at_eta_times(2, 64, constants) < 0


@pytest.mark.parametrize("size", [16, 64])
def test_halving_alpha_tilde_is_stable_at_a_third_of_the_rate(size):
    """What the governor falls back to when it is not sure of the rate."""
    constants = ring_constants(size)
    halved = constants._replace(alpha_tilde=constants.alpha_tilde / 2)
    assert all(decay_at_eta_times(factor, size, halved) > 0 for factor in (1, 2, 3))
