import math
from collections import Counter
from itertools import islice, pairwise, takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidmpi.pairing.events import Meeting, meetings_of, minus_log, schedule_events
from acidmpi.topology import make_topology


def events(topology, number, seed=0, comm_rate=1.0):
    return list(islice(schedule_events(topology, comm_rate, seed), number))


@given(
    st.sampled_from(["ring", "star", "complete", "exponential"]),
    st.integers(2, 12),
    st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_every_rank_sees_its_part_of_the_one_list(name, size, seed):
    topology = make_topology(name, size)
    whole = events(topology, 1200, seed)
    end = whole[-1].time
    for rank in range(size):
        mine = [Meeting(time, i + j - rank) for time, i, j in whole if rank in (i, j)]
        meetings = meetings_of(rank, topology, 1.0, seed)
        assert list(takewhile(lambda m: m.time <= end, meetings)) == mine


def test_times_grow_and_events_are_edges():
    topology = make_topology("torus", 16)
    some = events(topology, 5000)
    assert all(a.time < b.time for a, b in pairwise(some))
    assert {(i, j) for _, i, j in some} == set(topology.edges)


def test_each_edge_has_its_rate_and_gaps_are_exponential():
    topology = make_topology("star", 5)
    some = events(topology, 40000, comm_rate=3.0)
    total = topology.rates(3.0).sum()
    gaps = np.diff([event.time for event in some])
    assert gaps.mean() == pytest.approx(1 / total, rel=0.02)
    assert gaps.std() == pytest.approx(1 / total, rel=0.02)
    seen = Counter((i, j) for _, i, j in some)
    rates = [seen[edge] / some[-1].time for edge in topology.edges]
    assert rates == pytest.approx(topology.rates(3.0), rel=0.05)


def test_the_list_never_changes():
    """A frozen list: another machine or release must give the same bits."""
    some = events(make_topology("ring", 5), 1000, seed=12)
    assert [(i, j) for _, i, j in some[:6]] == FIRST_PAIRS
    assert [some[k].time.hex() for k in (0, 1, 999)] == TIMES


FIRST_PAIRS = [(1, 2), (2, 3), (0, 1), (0, 1), (0, 4), (3, 4)]
TIMES = ["0x1.3183012d9307cp-3", "0x1.320739e68152fp-1", "0x1.976eb7a53bdd6p+8"]


@pytest.mark.parametrize("other", [{"seed": 1}, {"comm_rate": 2.0}])
def test_seed_and_rate_matter(other):
    topology = make_topology("ring", 5)
    assert events(topology, 10) != events(topology, 10, **other)


@given(st.floats(2.0**-53, 1.0))
def test_the_logarithm_is_good_to_the_last_bits(value):
    (mine,) = minus_log(np.array([value])).tolist()
    assert mine == pytest.approx(-math.log(value), rel=4e-16, abs=3e-17)
    assert mine >= 0


@pytest.mark.parametrize(("size", "comm_rate"), [(1, 1.0), (4, 0.0)])
def test_without_edges_or_rate_nothing_happens(size, comm_rate):
    topology = make_topology("ring", size)
    assert list(schedule_events(topology, comm_rate, 0)) == []
    assert list(meetings_of(0, topology, comm_rate, 0)) == []
