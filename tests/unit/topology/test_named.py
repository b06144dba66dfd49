"""Each named graph is the graph that its name promises, for any number of ranks."""

import subprocess
import sys

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidmpi.errors import TopologyError
from acidmpi.topology import make_topology
from acidmpi.topology.named import PLAIN, most_square

ANY_SIZE = sorted(set(PLAIN) - {"hypercube"})


def degrees(topology):
    return {topology.degree(rank) for rank in range(topology.size)}


def as_networkx(topology):
    graph = networkx.empty_graph(topology.size)
    graph.add_edges_from(topology.edges)
    return graph


@given(st.sampled_from(ANY_SIZE), st.integers(1, 70))
def test_every_size_gives_a_simple_connected_graph(name, size):
    topology = make_topology(name, size)
    assert topology.name == name
    assert topology.size == size
    assert len(set(topology.edges)) == len(topology.edges)
    assert set(topology.weights) <= {1.0}
    assert not topology.absolute
    assert networkx.is_connected(as_networkx(topology))


@pytest.mark.parametrize("name", PLAIN)
def test_one_and_two_ranks(name):
    assert make_topology(name, 1).edges == ()
    assert make_topology(name, 2).edges == ((0, 1),)


@pytest.mark.parametrize(
    ("name", "size", "same"),
    [
        ("ring", 5, networkx.cycle_graph(5)),
        ("path", 5, networkx.path_graph(5)),
        ("star", 5, networkx.star_graph(4)),
        ("complete", 5, networkx.complete_graph(5)),
        ("grid", 12, networkx.grid_2d_graph(3, 4)),
        ("grid", 7, networkx.path_graph(7)),
        ("torus", 12, networkx.grid_2d_graph(3, 4, periodic=True)),
        ("torus", 6, networkx.circular_ladder_graph(3)),
        ("torus", 4, networkx.cycle_graph(4)),
        ("torus", 7, networkx.cycle_graph(7)),
        ("hypercube", 16, networkx.hypercube_graph(4)),
        ("exponential", 16, networkx.circulant_graph(16, [1, 2, 4, 8])),
        ("exponential", 11, networkx.circulant_graph(11, [1, 2, 3, 4])),
        ("exponential", 6, networkx.circulant_graph(6, [1, 2])),
    ],
)
def test_known_graphs(name, size, same):
    assert networkx.is_isomorphic(as_networkx(make_topology(name, size)), same)


def test_ranks_that_are_neighbours():
    assert make_topology("ring", 5).neighbours(0) == (1, 4)
    assert make_topology("star", 4).neighbours(0) == (1, 2, 3)
    assert make_topology("grid", 12).neighbours(5) == (1, 4, 6, 9)
    assert make_topology("torus", 12).neighbours(0) == (1, 3, 4, 8)
    assert make_topology("hypercube", 8).neighbours(5) == (1, 4, 7)
    assert make_topology("exponential", 16).neighbours(0) == (1, 2, 4, 8, 12, 14, 15)


@given(st.integers(1, 2000))
def test_most_square_is_a_factorisation_and_the_best(size):
    rows, columns = most_square(size)
    assert rows * columns == size
    assert rows <= columns
    between = range(rows + 1, columns)
    assert not any(size % other == 0 for other in between)


@pytest.mark.parametrize("size", [3, 6, 12, 63, 65])
def test_hypercube_needs_a_power_of_two(size):
    with pytest.raises(TopologyError, match=f"{size}.*start .* ranks.*'exponential'"):
        make_topology("hypercube", size)


@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.integers(0, 20))
@settings(max_examples=50)
def test_random_regular_is_regular_connected_and_seeded(degree, seed, more):
    size = degree + 1 + more
    size += degree * size % 2
    topology = make_topology(f"random-regular:{degree}", size, seed)
    assert degrees(topology) == {degree}
    assert networkx.is_connected(as_networkx(topology))
    assert topology == make_topology(f"random-regular:{degree}", size, seed)
    assert topology.name == f"random-regular:{degree}"


def test_random_regular_seeds_differ():
    graphs = {make_topology("random-regular:3", 20, seed).edges for seed in range(5)}
    assert len(graphs) == 5


def test_random_regular_of_one_and_two_ranks():
    assert make_topology("random-regular:4", 1).edges == ()
    assert make_topology("random-regular:1", 2).edges == ((0, 1),)


def test_dense_random_regular_is_quick():
    assert degrees(make_topology("random-regular:60", 64)) == {60}


def test_disconnected_draws_are_drawn_again(monkeypatch):
    four = np.array([(0, 1), (1, 2), (2, 3), (0, 3), (0, 2), (1, 3)])
    two_fours = np.concatenate([four, four + 4])
    joined = make_topology("hypercube", 8).endpoints
    draws = iter([two_fours, two_fours, np.stack(joined, axis=1)])
    monkeypatch.setattr("acidmpi.topology.named._draw", lambda *_: next(draws))
    topology = make_topology("random-regular:3", 8)
    assert topology.edges == make_topology("hypercube", 8).edges


def test_draws_end(monkeypatch):
    apart = np.array([(0, 1), (2, 3)])
    monkeypatch.setattr("acidmpi.topology.named._draw", lambda *_: apart)
    with pytest.raises(TopologyError, match="another seed"):
        make_topology("random-regular:3", 8)


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ("random-regular", 8, "needs its degree.*'random-regular:4'"),
        ("random-regular:", 8, "needs its degree"),
        ("random-regular:four", 8, "needs its degree"),
        ("random-regular:-4", 8, "needs its degree"),
        ("random-regular:8", 8, r"degree in 1\.\.7, got 8"),
        ("random-regular:0", 8, r"degree in 1\.\.7, got 0"),
        ("random-regular:1", 8, "degree 1 cannot join 8"),
        ("random-regular:3", 7, "must be even.*3 x 7.*degree 2"),
        ("ring:3", 8, "takes no argument"),
    ],
)
def test_impossible_arguments(spec, size, message):
    with pytest.raises(TopologyError, match=message):
        make_topology(spec, size)


def test_import_is_light():
    program = (
        "import sys, acidmpi.topology, acidmpi.topology.named;"
        "acidmpi.topology.make_topology('ring', 4);"
        "heavy = {'networkx', 'scipy', 'torch', 'mpi4py', 'numba'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
