"""A graph after deaths: whole, no richer than it must be, and the same on every rank."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from acidmpi.errors import TopologyError
from acidmpi.topology import Topology, make_topology, repaired, spectrum
from acidmpi.topology.repair import _rims, compacted


@st.composite
def wounded(draw):
    """A connected graph and some ranks of it, not all."""
    size = draw(st.integers(2, 14))
    tree = {(draw(st.integers(0, rank - 1)), rank) for rank in range(1, size)}
    pairs = [(i, j) for j in range(size) for i in range(j)]
    more = draw(st.sets(st.sampled_from(pairs), max_size=size))
    edges = tuple(sorted(tree | more))
    weights = st.lists(st.floats(0.1, 10), min_size=len(edges), max_size=len(edges))
    graph = Topology(size, edges, tuple(draw(weights)), "drawn", draw(st.booleans()))
    dead = draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
    return graph, dead


@settings(deadline=None)
@given(wounded())
def test_survivors_numbered_anew_have_the_same_graph(drawn):
    graph, dead = drawn
    mended = repaired(graph, dead)
    small, left = compacted(mended), [int(rank) for rank in mended.survivors]
    assert small.size == len(left)
    assert (small.dead, small.whole) == ((), None)
    for new, old in enumerate(left):
        assert [left[peer] for peer in small.neighbours(new)] == list(
            mended.neighbours(old)
        )
        assert small.edge_weights(new) == mended.edge_weights(old)
    assert small.rates(1.0) == pytest.approx(mended.rates(1.0))


def kept_edges(graph, dead):
    return {edge for edge in graph.edges if not dead & {*edge}}


def pieces(graph, dead):
    """How many pieces the survivors fall into, and the edges that bridge a hole."""
    kept = kept_edges(graph, dead)
    bridges = {tuple(sorted(rim)) for rim in _rims(graph, dead) if len(rim) == 2}
    return components(graph.size, kept | bridges) - len(dead), bridges - kept


def components(size, edges):
    ends = np.array(sorted(edges), dtype=int).reshape(-1, 2)
    matrix = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (size, size))
    return connected_components(matrix, directed=False)[0]


@given(wounded())
def test_survivors_keep_their_edges_and_hang_together(case):
    graph, dead = case
    mended = repaired(graph, dead)
    assert mended.dead == tuple(sorted(dead))
    assert kept_edges(graph, dead) <= {*mended.edges}
    assert components(graph.size, mended.edges) == len(dead) + 1
    assert not any(mended.neighbours(rank) for rank in dead)


@given(wounded())
def test_no_edge_is_added_beyond_bridges_and_one_less_than_there_are_pieces(case):
    graph, dead = case
    mended = repaired(graph, dead)
    left, bridges = pieces(graph, dead)
    added = {*mended.edges} - kept_edges(graph, dead)
    assert bridges <= added
    assert len(added - bridges) == left - 1


@given(wounded(), st.randoms())
def test_the_order_of_deaths_does_not_matter(case, chance):
    graph, dead = case
    order = sorted(dead)
    chance.shuffle(order)
    one_by_one = graph
    for rank in order:
        one_by_one = repaired(one_by_one, [rank])
    assert one_by_one == repaired(graph, dead)


def test_planted_fault_a_repair_of_the_repaired_graph_depends_on_the_order():
    def forgetful(graph, order):
        for rank in order:
            graph = replace(repaired(graph, [rank]), whole=None)
        return graph.edges

    grid = make_topology("grid", 9)
    assert any(
        forgetful(grid, order) != forgetful(grid, order[::-1])
        for order in permutations(range(9), 2)
    )


@given(wounded())
def test_nobody_gains_more_than_two_edges_beside_a_hole(case):
    graph, dead = case
    mended = repaired(graph, dead)
    rims = list(_rims(graph, dead))
    for rank in mended.survivors:
        kept = sum(rank in edge for edge in kept_edges(graph, dead))
        holes = sum(rank in rim for rim in rims)
        assert mended.degree(rank) <= kept + 2 * holes


def joined_at_random(graph, dead):
    """A repair that joins the pieces where it likes: connected, and no more."""
    edges = dict.fromkeys(kept_edges(graph, dead), 1.0)
    alive = [rank for rank in range(graph.size) if rank not in dead]
    for rank in alive[1:]:
        trial = {*edges, (alive[0], rank)}
        if components(graph.size, trial) < components(graph.size, edges):
            edges[alive[0], rank] = 1.0
    return edges


def test_planted_fault_one_rank_takes_all_that_fell_apart():
    star = make_topology("star", 9)
    edges = joined_at_random(star, {0})
    degrees = [sum(rank in edge for edge in edges) for rank in range(9)]
    mended = repaired(star, {0})
    assert max(degrees) == 7 > max(mended.degree(rank) for rank in range(9)) == 2


@given(st.integers(3, 40), st.data())
def test_a_ring_stays_a_ring_and_a_path_a_path(size, data):
    dead = data.draw(st.sets(st.integers(0, size - 1), max_size=size - 2))
    left = size - len(dead)
    ring = repaired(make_topology("ring", size), dead)
    assert spectrum(ring) == pytest.approx(spectrum(make_topology("ring", left)))
    path = repaired(make_topology("path", size), dead)
    assert spectrum(path) == pytest.approx(spectrum(make_topology("path", left)))


@pytest.mark.parametrize("name", ["complete", "star", "exponential"])
def test_a_leaf_or_a_rank_among_many_is_not_replaced(name):
    graph = make_topology(name, 9)
    assert {*repaired(graph, {8}).edges} == kept_edges(graph, {8})


@pytest.mark.parametrize("absolute", [False, True])
@given(case=wounded(), comm_rate=st.floats(0.1, 10))
def test_comm_rate_is_the_mean_over_survivors(absolute, case, comm_rate):
    graph, dead = case
    graph = Topology(graph.size, graph.edges, graph.weights, "drawn", absolute)
    mended = repaired(graph, dead)
    rates = mended.rates(comm_rate)
    alive = graph.size - len(dead)
    if alive == 1:
        assert rates.size == 0
    else:
        assert 2 * rates.sum() / alive == pytest.approx(comm_rate)
    starts = [mended.start_rate(rank, comm_rate) for rank in range(graph.size)]
    assert sum(starts) == pytest.approx(rates.sum())
    assert all(starts[rank] == 0 for rank in dead)


@given(wounded())
@settings(max_examples=50)
def test_the_spectrum_is_that_of_the_survivors_alone(case):
    graph, dead = case
    mended = repaired(graph, dead)
    number = {rank: k for k, rank in enumerate(mended.survivors.tolist())}
    edges = tuple((number[i], number[j]) for i, j in mended.edges)
    alone = Topology(len(number), edges, mended.weights, "alone", mended.absolute)
    assert spectrum(mended) == pytest.approx(spectrum(alone), rel=1e-9)


def test_all_but_one_dead():
    mended = repaired(make_topology("ring", 5), {0, 1, 3, 4})
    assert (mended.edges, mended.survivors.tolist()) == ((), [2])
    assert spectrum(mended) == (0.0, 0.0)
    assert mended.start_rate(2, 1.0) == 0.0


def test_a_new_edge_weighs_what_its_ends_have_lost_in_the_mean():
    chain = Topology(3, ((0, 1), (1, 2)), (1.0, 3.0), "chain", absolute=True)
    assert repaired(chain, {1}).weights == (2.0,)


def test_without_deaths_the_graph_is_what_it_was():
    ring = make_topology("ring", 5)
    assert repaired(ring, ()) is ring


def test_sides_of_a_size_that_numpy_does_alone_and_beyond_agree():
    small, large = make_topology("ring", 256), make_topology("ring", 258)
    exact = [1 / (2 * np.sin(np.pi / n) ** 2) for n in (256, 257)]
    assert spectrum(small).chi_1 == pytest.approx(exact[0], rel=1e-8)
    assert spectrum(repaired(large, {7})).chi_1 == pytest.approx(exact[1], rel=1e-8)


@pytest.mark.parametrize(("dead", "message"), [({5}, "0..4"), ({-1}, "0..4")])
def test_ranks_that_do_not_exist(dead, message):
    with pytest.raises(TopologyError, match=message):
        repaired(make_topology("ring", 5), dead)


def test_somebody_must_survive():
    with pytest.raises(TopologyError, match="5 dead of 5"):
        repaired(make_topology("ring", 5), range(5))


def test_a_dead_rank_has_no_edges():
    with pytest.raises(TopologyError, match="rank 1 has"):
        Topology(3, ((0, 1), (0, 2)), (1.0, 1.0), "g", dead=(1,))
    with pytest.raises(TopologyError, match="sorted, each once"):
        Topology(3, ((0, 1),), (1.0,), "g", dead=(2, 2))
