"""Exact second moments on any graph, beside the modes of a ring and replayed events."""

import math

import numpy as np
import pytest

from acidmpi.dynamics.coefficients import BASELINE, Coefficients, acid_coefficients
from acidmpi.dynamics.events import Exchange, Gradient, Reference
from acidmpi.dynamics.moments import Moments
from acidmpi.topology import make_topology, spectrum


def moments(name, size, accelerated=True, change=lambda c: c):
    topology = make_topology(name, size)
    constants = acid_coefficients(*spectrum(topology)) if accelerated else BASELINE
    return Moments(size, topology.endpoints, topology.rates(1.0), change(constants))


@pytest.mark.parametrize(("size", "known"), [(16, 0.199), (32, 0.107), (64, 0.057)])
def test_a_ring_has_the_decay_of_its_modes(size, known):
    assert moments("ring", size).decay() == pytest.approx(known, abs=6e-4)


def test_two_ranks_with_the_baseline_forget_at_their_rate():
    """Each exchange ends all difference, so its mean square falls with their rate."""
    assert moments("path", 2, accelerated=False).decay() == pytest.approx(1.0, rel=1e-6)


def test_twice_the_mixing_diverges_on_a_ring_of_64():
    assert moments("ring", 64, change=lambda c: c._replace(eta=2 * c.eta)).decay() < 0


def replayed(topology, constants, end, seed, variance):
    """Consensus distance of an element after `end` units; start and noise are normal."""
    chance = np.random.default_rng(seed)
    start = chance.standard_normal((topology.size, 64)) if not variance else None
    reference = Reference(
        np.zeros((topology.size, 64)) if start is None else start, constants
    )
    rates = topology.rates(1.0)
    noise = topology.size if variance else 0.0
    time, total = 0.0, rates.sum() + noise
    while (time := time + chance.exponential(1 / total)) < end:
        theta = constants.eta * time
        if chance.random() * total < noise:
            rank = int(chance.integers(topology.size))
            update = math.sqrt(variance) * chance.standard_normal(64)
            reference.replay([Gradient(rank, theta, update)])
        else:
            edge = topology.edges[chance.choice(len(rates), p=rates / rates.sum())]
            reference.replay([Exchange(*edge, theta, theta)])
    reference.flush(constants.eta * end)
    return reference.consensus_distance / 64


@pytest.mark.parametrize("accelerated", [False, True])
def test_noise_leaves_the_distance_that_replayed_events_show(accelerated):
    topology = make_topology("star", 6)
    constants = acid_coefficients(*spectrum(topology)) if accelerated else BASELINE
    seen = [replayed(topology, constants, 30.0, seed, 2.0) for seed in range(120)]
    expected = moments("star", 6, accelerated).noise_distance(2.0)
    assert np.mean(seen) == pytest.approx(expected, rel=0.1)


def test_noise_is_not_forgotten_where_constants_diverge():
    wrong = moments("ring", 64, change=lambda c: c._replace(eta=2 * c.eta))
    assert wrong.noise_distance(1.0) == math.inf


def test_unequal_jumps_are_seen():
    """The moments depend on alpha_tilde, not on eta alone."""
    usual = moments("ring", 16).decay()
    other = moments("ring", 16, change=lambda c: Coefficients(c.eta, c.alpha, 0.5))
    assert other.decay() < 0.6 * usual
