"""Who is who among machines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.compat.places import find_place


def test_two_machines_of_different_sizes():
    # Horovod's own example: two processes on one machine, one on the other.
    hosts = ["a", "a", "b"]
    places = [find_place(hosts, rank) for rank in range(3)]
    assert [p.local_rank for p in places] == [0, 1, 0]
    assert [p.local_size for p in places] == [2, 2, 1]
    assert [p.cross_rank for p in places] == [0, 0, 1]
    assert [p.cross_size for p in places] == [2, 1, 2]
    assert not any(p.homogeneous for p in places)


@pytest.mark.parametrize("hosts", [["a"], ["a", "b", "a", "b"], list("abcd")])
def test_machines_of_one_size(hosts):
    assert all(find_place(hosts, rank).homogeneous for rank in range(len(hosts)))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_places_are_a_numbering_of_ranks(hosts):
    places = [find_place(hosts, rank) for rank in range(len(hosts))]
    taken = {(p.local_rank, p.cross_rank) for p in places}
    assert len(taken) == len(hosts)
    for place in places:
        assert 0 <= place.local_rank < place.local_size
        column = [p for p in places if p.local_rank == place.local_rank]
        assert sorted(p.cross_rank for p in column) == list(range(place.cross_size))
