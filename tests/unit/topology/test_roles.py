"""Active and passive ranks: every edge joins one of each, or the graph is refused."""

import numpy as np
import pytest

from acidmpi.errors import TopologyError
from acidmpi.topology import make_topology
from acidmpi.topology.roles import active_ranks

BIPARTITE = [
    ("ring", 2),
    ("ring", 4),
    ("ring", 64),
    ("path", 7),
    ("star", 5),
    ("grid", 12),
    ("torus", 16),
    ("hypercube", 16),
    ("complete", 2),
    ("path", 1),
]


@pytest.mark.parametrize(("name", "size"), BIPARTITE)
def test_every_edge_joins_both_roles(name, size):
    topology = make_topology(name, size)
    active = active_ranks(topology)
    first, second = topology.endpoints
    assert active.shape == (size,)
    assert active[0]
    assert (active[first] != active[second]).all()


def test_even_ranks_of_a_ring_are_active():
    assert active_ranks(make_topology("ring", 6)).tolist() == [True, False] * 3


@pytest.mark.parametrize(
    ("name", "size"),
    [("ring", 3), ("ring", 7), ("complete", 4), ("exponential", 8), ("torus", 9)],
)
def test_an_odd_cycle_is_refused_with_an_edge_of_it(name, size):
    topology = make_topology(name, size)
    with pytest.raises(TopologyError, match="even number of ranks") as caught:
        active_ranks(topology)
    assert repr(name) in str(caught.value)
    edge = str(caught.value).split("through the edge ")[1].split(";")[0]
    assert edge in map(str, topology.edges)


def test_random_trees_have_roles():
    chance = np.random.default_rng(1)
    parents = [int(chance.integers(rank)) for rank in range(1, 40)]
    tree = type(make_topology("path", 2)).equal(
        40, [(p, k + 1) for k, p in enumerate(parents)], "tree"
    )
    active = active_ranks(tree)
    assert all(active[p] != active[k + 1] for k, p in enumerate(parents))
