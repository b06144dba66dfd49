"""Which messages are cut up, and that nothing is lost by it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.mpi.fabric import has_adapter
from acidmpi.mpi.nodes import Node
from acidmpi.transport.pieces import (
    AT_ONCE_BYTES,
    cut,
    longest_message,
    longest_of_all,
)

OPEN_MPI, MPICH = "Open MPI v5.0.11", "MPICH Version: 5.0.2"


def node(fabric=False, beside=(True, True, False)):
    return Node(0, 2, 2, beside=beside, fabric=fabric)


def rule(asked=None, library=OPEN_MPI, **more):
    longest = longest_message(asked, node(**more), library)
    return [longest(peer) for peer in range(3)]


def test_over_tcp_open_mpi_gets_pieces_that_it_sends_at_once():
    assert rule() == [None, None, AT_ONCE_BYTES]


@pytest.mark.parametrize(
    "more", [{"library": MPICH}, {"fabric": True}, {"beside": (True,) * 3}]
)
def test_elsewhere_messages_are_whole(more):
    assert rule(**more) == [None] * 3


def test_where_every_rank_sends_to_every_other_one_machine_more_is_enough():
    assert longest_of_all(node(), OPEN_MPI) == AT_ONCE_BYTES
    assert longest_of_all(node(beside=(True,) * 3), OPEN_MPI) is None
    assert longest_of_all(node(fabric=True), OPEN_MPI) is None


def test_what_is_asked_for_holds_everywhere():
    assert rule(1000, MPICH, fabric=True) == [1000] * 3


@given(st.integers(0, 500), st.none() | st.integers(1, 600))
def test_pieces_cover_every_byte_once_in_order(size, longest):
    data = np.arange(size)
    pieces = [data[piece] for piece in cut(size, longest)]
    np.testing.assert_array_equal(np.concatenate([data[:0], *pieces]), data)
    assert all(0 < len(piece) <= (longest or size) for piece in pieces)


def test_an_adapter_is_what_the_kernel_lists(tmp_path):
    assert not has_adapter([tmp_path / "none", tmp_path])
    (tmp_path / "mlx5_0").mkdir()
    assert has_adapter([tmp_path / "none", tmp_path])
