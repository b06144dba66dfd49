"""A topology keeps its promises: order, proportions, and how often each rank starts."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import ConfigError, TopologyError
from acidmpi.topology import Topology


@st.composite
def topologies(draw, absolute=None):
    size = draw(st.integers(2, 12))
    # A random tree keeps the graph connected; the rest is free.
    tree = {(draw(st.integers(0, rank - 1)), rank) for rank in range(1, size)}
    pairs = [(i, j) for j in range(size) for i in range(j)]
    edges = tuple(sorted(tree | draw(st.sets(st.sampled_from(pairs)))))
    weights = draw(
        st.lists(st.floats(1e-3, 1e3), min_size=len(edges), max_size=len(edges))
    )
    rated = draw(st.booleans()) if absolute is None else absolute
    return Topology(size, edges, tuple(weights), "random", rated)


def rates_by_draws(topology, comm_rate):
    """Rate of each edge if every rank starts and draws as it is told to."""
    rates = dict.fromkeys(topology.edges, 0.0)
    for rank in range(topology.size):
        weights = np.array(topology.edge_weights(rank))
        starts = topology.start_rate(rank, comm_rate) * weights / weights.sum()
        for peer, rate in zip(topology.neighbours(rank), starts, strict=True):
            rates[min(rank, peer), max(rank, peer)] += rate
    return np.array([rates[edge] for edge in topology.edges])


def check_draws_give_the_rates(topology, comm_rate, by_draws=rates_by_draws):
    expected = topology.rates(comm_rate)
    np.testing.assert_allclose(by_draws(topology, comm_rate), expected, rtol=1e-12)


@given(topologies(), st.floats(0.1, 10))
def test_starts_and_draws_give_the_rates_of_the_edges(topology, comm_rate):
    check_draws_give_the_rates(topology, comm_rate)


def test_planted_fault_equal_starts_on_an_absolute_graph():
    def equal_starts(topology, comm_rate):
        relative = Topology(topology.size, topology.edges, topology.weights, "", False)
        return rates_by_draws(relative, comm_rate)

    rated = Topology(3, ((0, 1), (1, 2)), (1.0, 3.0), "path", absolute=True)
    with pytest.raises(AssertionError):
        check_draws_give_the_rates(rated, 1.0, equal_starts)


@given(topologies(), st.floats(0.1, 10))
def test_comm_rate_is_the_mean_over_ranks(topology, comm_rate):
    mean = 2 * topology.rates(comm_rate).sum() / topology.size
    assert mean == pytest.approx(comm_rate, rel=1e-12)


@given(topologies(absolute=True))
def test_absolute_rates_are_proportional_to_the_given_ones(topology):
    ratio = topology.rates(1.0) / np.array(topology.weights)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


@given(topologies())
def test_neighbours_mirror_the_edges(topology):
    listed = {
        (min(rank, peer), max(rank, peer)): weight
        for rank in range(topology.size)
        for peer, weight in zip(
            topology.neighbours(rank), topology.edge_weights(rank), strict=True
        )
    }
    assert listed == dict(zip(topology.edges, topology.weights, strict=True))
    degrees = [topology.degree(rank) for rank in range(topology.size)]
    assert sum(degrees) == 2 * len(topology.edges)
    assert degrees == [len(topology.neighbours(rank)) for rank in range(topology.size)]


def test_equal_weights_follow_the_degrees():
    star = Topology.equal(4, [(0, 1), (0, 2), (0, 3)], "star")
    np.testing.assert_allclose(star.rates(2.0), [4 / 3] * 3)


def test_equal_sorts_and_removes_repetitions():
    graph = Topology.equal(3, [(2, 1), (1, 0), (1, 2)], "path")
    assert graph.edges == ((0, 1), (1, 2))
    assert graph.weights == (1.0, 1.0)


def test_extreme_rates_do_not_overflow():
    graph = Topology(3, ((0, 1), (1, 2)), (1.7e308, 1.7e308), "path", absolute=True)
    np.testing.assert_allclose(graph.rates(1.0), [0.75, 0.75])


@pytest.mark.parametrize("absolute", [False, True])
def test_one_rank_has_nobody_to_exchange_with(absolute):
    alone = Topology(1, (), (), "alone", absolute)
    assert alone.neighbours(0) == ()
    assert alone.edge_weights(0) == ()
    assert alone.start_rate(0, 1.0) == 0.0
    assert alone.rates(1.0).size == 0


def test_two_ranks_exchange_comm_rate_times():
    assert Topology.equal(2, [(0, 1)], "ring").rates(3.0).tolist() == [3.0]


def test_topology_survives_being_sent():
    graph = Topology.equal(3, [(0, 1), (1, 2)], "path")
    graph.neighbours(0)
    received = pickle.loads(pickle.dumps(graph))
    assert received == graph
    assert hash(received) == hash(graph)
    assert received.neighbours(1) == (0, 2)


@pytest.mark.parametrize(
    ("size", "edges", "weights", "message"),
    [
        (0, (), (), "at least one rank"),
        (2, ((0, 0), (0, 1)), (1.0, 1.0), r"self-loop \(0, 0\)"),
        (2, ((1, 0),), (1.0,), r"i < j < 2, got \(1, 0\)"),
        (2, ((0, 2),), (1.0,), r"got \(0, 2\)"),
        (2, ((-1, 1),), (1.0,), r"got \(-1, 1\)"),
        (3, ((1, 2), (0, 1)), (1.0, 1.0), "sorted and unique"),
        (2, ((0, 1), (0, 1)), (1.0, 1.0), "sorted and unique"),
        (3, ((0, 1), (1, 2)), (1.0,), "one weight, got 1 for 2 edges"),
        (2, ((0, 1),), (0.0,), "positive and finite, got 0.0"),
        (2, ((0, 1),), (-1.0,), "positive and finite, got -1.0"),
        (2, ((0, 1),), (math.nan,), "positive and finite, got nan"),
        (2, ((0, 1),), (math.inf,), "positive and finite, got inf"),
        (3, ((0, 1),), (1.0,), "rank 2 cannot be reached"),
        (4, ((0, 1), (2, 3)), (1.0, 1.0), "ranks 2, 3 cannot be reached"),
        (9, ((0, 1),), (1.0,), "ranks 2, 3, 4, 5, 6 and 2 more cannot be reached"),
        (2, (), (), "rank 1 cannot be reached"),
    ],
)
def test_what_is_not_a_topology(size, edges, weights, message):
    with pytest.raises(TopologyError, match=message):
        Topology(size, edges, weights, "wrong")


def test_equal_refuses_negative_ranks():
    with pytest.raises(TopologyError, match="from 0, got an edge with -1"):
        Topology.equal(2, [(-1, 1)], "wrong")


@pytest.mark.parametrize("rank", [-1, 2])
@pytest.mark.parametrize("ask", ["neighbours", "degree", "edge_weights"])
def test_rank_out_of_range(ask, rank):
    with pytest.raises(IndexError, match=r"0\.\.1"):
        getattr(Topology.equal(2, [(0, 1)], "pair"), ask)(rank)


@pytest.mark.parametrize("comm_rate", [-1.0, math.nan, math.inf])
def test_comm_rate_must_be_a_rate(comm_rate):
    graph = Topology.equal(2, [(0, 1)], "pair")
    with pytest.raises(ConfigError, match="comm_rate"):
        graph.rates(comm_rate)
    with pytest.raises(ConfigError, match="comm_rate"):
        graph.start_rate(0, comm_rate)
