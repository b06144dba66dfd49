"""Synchronous gossip on paper: matrices that keep the mean, and how fast they average."""

import numpy as np
import pytest

from acidmpi.errors import TopologyError
from acidmpi.topology import make_topology
from acidmpi.topology.rounds import ONE_PEER, make_rounds


def matrices(spec, size):
    """The mixing matrix of each step, from what each rank does."""
    ranks = [make_rounds(spec, rank, size) for rank in range(size)]
    assert len({rounds.described for rounds in ranks}) == 1
    (count,) = {len(rounds.steps) for rounds in ranks}
    found = []
    for step in range(count):
        parts = [rounds.steps[step] for rounds in ranks]
        for rank, part in enumerate(parts):
            assert rank not in part.sources
            for peer in part.targets:
                assert rank in parts[peer].sources
            for peer in part.sources:
                assert rank in parts[peer].targets
        matrix = np.zeros((size, size))
        for rank, part in enumerate(parts):
            matrix[rank, list(part.sources)] = part.weights
            matrix[rank, rank] = 1.0 - sum(part.weights)
        found.append(matrix)
    return found


CASES = [
    (ONE_PEER, 2),
    (ONE_PEER, 3),
    (ONE_PEER, 8),
    (ONE_PEER, 12),
    ("ring", 2),
    ("ring", 7),
    ("star", 6),
    ("complete", 5),
    ("grid", 12),
    ("exponential", 8),
]


@pytest.mark.parametrize(("spec", "size"), CASES)
def test_every_step_keeps_the_mean(spec, size):
    for matrix in matrices(spec, size):
        assert (matrix >= 0).all()
        assert (np.diag(matrix) > 0).all()
        np.testing.assert_allclose(matrix.sum(axis=0), 1.0, rtol=1e-15)
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-15)


@pytest.mark.parametrize(("spec", "size"), CASES)
def test_a_period_of_steps_averages_everything_in_the_limit(spec, size):
    period = np.linalg.multi_dot([np.eye(size), *matrices(spec, size)[::-1]])
    apart = np.abs(np.linalg.eigvals(period - np.full((size, size), 1 / size)))
    assert apart.max() < 0.98


@pytest.mark.parametrize("power", [1, 2, 3, 6])
def test_one_peer_is_exact_after_log2_of_the_ranks(power):
    size = 2**power
    steps = matrices(ONE_PEER, size)
    assert len(steps) == power
    for first in range(power):  # whichever step comes first
        product = np.eye(size)
        for k in range(power):
            product = steps[(first + k) % power] @ product
        assert (product == 1 / size).all()


def test_one_peer_is_exact_for_powers_of_two_only():
    product = np.linalg.multi_dot(matrices(ONE_PEER, 6))
    assert np.abs(product - 1 / 6).max() > 0.01


def test_metropolis_looks_at_both_degrees():
    (star,) = matrices("star", 5)
    assert star[1, 0] == star[0, 1] == 1 / 5
    assert star[1, 1] == pytest.approx(4 / 5)
    assert star[0, 0] == pytest.approx(1 / 5)


@pytest.mark.parametrize("spec", [ONE_PEER, "ring", "complete"])
def test_a_rank_alone_does_nothing(spec):
    assert make_rounds(spec, 0, 1).steps == ()


def test_graphs_differ_in_their_description():
    graphs = ["ring", "complete", ONE_PEER, make_topology("path", 6)]
    assert len({make_rounds(graph, 0, 6).described for graph in graphs}) == 4


def test_a_graph_that_does_not_exist_is_refused():
    with pytest.raises(TopologyError, match=f"ring.*{ONE_PEER}.*'moebius' is neither"):
        make_rounds("moebius", 0, 4)
