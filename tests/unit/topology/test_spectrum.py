"""chi_1 and chi_2 against closed forms and against a dense pseudo-inverse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidmpi.errors import ConfigError, TopologyError
from acidmpi.topology import Topology, make_topology, spectrum
from acidmpi.topology.spectrum import spectrum_of_rates


def by_pseudo_inverse(topology, comm_rate):
    laplacian = np.zeros((topology.size, topology.size))
    for (i, j), rate in zip(topology.edges, topology.rates(comm_rate), strict=True):
        direction = np.zeros(topology.size)
        direction[i], direction[j] = 1, -1
        laplacian += rate * np.outer(direction, direction)
    inverse = np.linalg.pinv(laplacian, hermitian=True, rcond=1e-13)
    resistances = [
        inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in topology.edges
    ]
    return 1 / np.linalg.eigvalsh(laplacian)[1], max(resistances) / 2


@st.composite
def weighted(draw):
    size = draw(st.integers(2, 14))
    tree = {(draw(st.integers(0, rank - 1)), rank) for rank in range(1, size)}
    pairs = [(i, j) for j in range(size) for i in range(j)]
    edges = tuple(sorted(tree | draw(st.sets(st.sampled_from(pairs)))))
    rates = st.lists(st.floats(1e-2, 1e2), min_size=len(edges), max_size=len(edges))
    return Topology(size, edges, tuple(draw(rates)), "weighted", draw(st.booleans()))


@given(weighted(), st.floats(0.1, 10))
@settings(max_examples=50)
def test_agrees_with_a_pseudo_inverse(topology, comm_rate):
    found = spectrum(topology, comm_rate)
    expected = by_pseudo_inverse(topology, comm_rate)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert found.chi_2 <= found.chi_1 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "size", "chi_1", "chi_2"),
    [
        ("ring", 16, 13.137, 0.938),
        ("ring", 64, 207.67, 0.984),
        ("star", 64, 1.969, 0.984),
        ("torus", 16, 2.0, 0.9375),
        ("torus", 64, 6.83, 0.984),
        ("hypercube", 8, 1.5, 0.875),
        ("hypercube", 64, 3.0, 0.984),
    ],
)
def test_reference_values(name, size, chi_1, chi_2):
    found = spectrum(make_topology(name, size))
    assert found.chi_1 == pytest.approx(chi_1, rel=5e-4)
    assert found.chi_2 == pytest.approx(chi_2, rel=6e-4)


@pytest.mark.parametrize("size", [2, 3, 4, 16, 64])
def test_complete(size):
    expected = (size - 1) / size
    assert spectrum(make_topology("complete", size)) == pytest.approx(
        (expected, expected)
    )


@pytest.mark.parametrize("size", [3, 16, 100, 300, 600])
def test_ring_in_closed_form(size):
    found = spectrum(make_topology("ring", size))
    chi_1 = 1 / (2 * math.sin(math.pi / size) ** 2)
    assert found.chi_1 == pytest.approx(chi_1, rel=1e-8)
    assert found.chi_2 == pytest.approx((size - 1) / size, rel=1e-8)


@pytest.mark.parametrize("size", [4, 16, 64])
def test_exponential_counts_each_edge_once(size):
    topology = make_topology("exponential", size)
    degree = topology.degree(0)
    k = np.arange(1, size)
    powers = [1 << power for power in range(size.bit_length() - 2)]
    values = sum(2 - 2 * np.cos(2 * np.pi * k * step / size) for step in powers)
    values = (values + 1 - np.cos(np.pi * k)) / degree
    assert degree == 2 * len(powers) + 1
    assert spectrum(topology).chi_1 == pytest.approx(1 / values.min())


def test_a_bridge_has_the_resistance_of_its_own_rate():
    topology = Topology(4, ((0, 1), (1, 2), (2, 3)), (1.0, 0.01, 1.0), "path", True)
    rate = topology.rates(1.0)[1]
    assert spectrum(topology).chi_2 == pytest.approx(0.5 / rate, rel=1e-10)


def test_rates_from_elsewhere():
    ring = make_topology("ring", 8)
    assert spectrum_of_rates(8, ring.endpoints, 3 * ring.rates(1.0)) == pytest.approx(
        spectrum(ring, 3.0)
    )


def test_one_rank_has_no_spectrum():
    assert spectrum(make_topology("ring", 1)) == (0.0, 0.0)


@pytest.mark.parametrize("comm_rate", [0.0, -1.0, math.nan, math.inf])
def test_comm_rate_must_be_positive(comm_rate):
    with pytest.raises(ConfigError, match="comm_rate must be positive"):
        spectrum(make_topology("ring", 4), comm_rate)


def test_rates_too_far_apart():
    topology = Topology(3, ((0, 1), (1, 2)), (1.0, 1e-300), "path", absolute=True)
    with pytest.raises(TopologyError, match="orders of magnitude"):
        spectrum(topology)
