"""What may be given as a topology, and the message for everything else."""

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import TopologyError
from acidmpi.topology import Topology, make_topology
from acidmpi.topology.named import NAMES


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(TopologyError) as error:
        make_topology("rign", 4)
    assert "'rign'" in str(error.value)
    assert all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize("spec", [None, 4, [(0, 1)]])
def test_other_types_are_refused(spec):
    with pytest.raises(TopologyError, match=f"got {type(spec).__name__}"):
        make_topology(spec, 2)


@pytest.mark.parametrize("size", [0, -1])
def test_no_ranks(size):
    with pytest.raises(TopologyError, match="at least one rank"):
        make_topology("ring", size)


def test_a_topology_is_itself():
    ring = make_topology("ring", 4)
    assert make_topology(ring, 4) is ring


def test_a_topology_of_another_size():
    with pytest.raises(TopologyError, match="'ring' is one of 4 ranks, got 5"):
        make_topology(make_topology("ring", 4), 5)


@given(st.integers(2, 10), st.randoms(use_true_random=False), st.booleans())
def test_networkx_graphs_keep_edges_and_rates(size, random, rated):
    graph = networkx.random_labeled_tree(size, seed=random.randrange(1000))
    if rated:
        for i, j in graph.edges:
            graph.edges[i, j]["rate"] = random.uniform(0.1, 10)
    topology = make_topology(graph, size)
    assert topology.absolute == rated
    assert set(topology.edges) == {(min(edge), max(edge)) for edge in graph.edges}
    for (i, j), weight in zip(topology.edges, topology.weights, strict=True):
        assert weight == graph.edges[i, j].get("rate", 1.0)


def test_networkx_name():
    assert make_topology(networkx.path_graph(3), 3).name == "networkx"
    named = networkx.Graph([(0, 1)], name="pair")
    assert make_topology(named, 2).name == "pair"


def test_numpy_labels_are_ranks():
    graph = networkx.Graph([(np.int64(0), np.int64(1))])
    assert make_topology(graph, 2).edges == ((0, 1),)


def test_parallel_edges_that_agree():
    graph = networkx.MultiGraph([(0, 1), (1, 0)])
    assert make_topology(graph, 2).edges == ((0, 1),)


def test_one_node():
    assert make_topology(networkx.empty_graph(1), 1) == Topology(1, (), (), "networkx")


def rated(*edges):
    graph = networkx.MultiGraph()
    for i, j, rate in edges:
        graph.add_edge(i, j, **({} if rate is None else {"rate": rate}))
    return graph


@pytest.mark.parametrize(
    ("graph", "size", "message"),
    [
        (networkx.DiGraph([(0, 1)]), 2, "directed.*to_undirected"),
        (networkx.path_graph(3), 4, "is one of 3 ranks, got 4; start 3 ranks"),
        (networkx.Graph([(1, 2)]), 2, r"ranks 0\.\.1, got 2; use `networkx.convert"),
        (networkx.Graph([("a", "b")]), 2, "got 'a'"),
        (networkx.Graph([(0, 1), (2, 3)]), 4, "ranks 2, 3 cannot be reached"),
        (networkx.Graph([(0, 1), (1, 1)]), 2, r"self-loop \(1, 1\)"),
        (networkx.Graph([(0, 0)]), 1, r"self-loop \(0, 0\)"),
        (rated((0, 1, -2.0)), 2, r"edge \(0, 1\): .*positive and finite, got -2.0"),
        (rated((0, 1, 0)), 2, "got 0.0"),
        (rated((0, 1, float("nan"))), 2, "got nan"),
        (rated((0, 1, "fast")), 2, "must be a number, got 'fast'"),
        (rated((0, 1, 1.0), (1, 0, 2.0)), 2, "has the rate 2.0, but 1.0"),
        (rated((0, 1, 1.0), (0, 1, None)), 2, "has the rate None, but 1.0"),
        (rated((0, 1, 1.0), (1, 2, None)), 3, "either all edges carry a rate or none"),
    ],
)
def test_graphs_that_cannot_be_used(graph, size, message):
    with pytest.raises(TopologyError, match=message):
        make_topology(graph, size)
