"""The transport contract between neighbouring ranks of MPI_COMM_WORLD.

Ranks stand in a ring; in each round the pairs of one kind of edge talk. With one rank it
talks to itself.
"""

from collections.abc import Iterator

import pytest
from mpi4py import MPI

from acidmpi.testing.transports import CONTRACT, Routine, run_alone
from acidmpi.transport.host import HostTransport

pytestmark = pytest.mark.mpi


def pairs(comm: MPI.Comm) -> Iterator[int]:
    """Peers of this rank, one after the other, so that no two pairs overlap."""
    if comm.size == 1:
        yield 0
    for shift in range(1, comm.size):
        partner = (shift - comm.rank) % comm.size
        if partner != comm.rank:
            yield partner


@pytest.fixture(name="comm")
def duplicate() -> Iterator[MPI.Comm]:
    """A communicator of the test's own."""
    comm = MPI.COMM_WORLD.Dup()
    yield comm
    comm.Free()


@pytest.mark.parametrize("routine", CONTRACT, ids=lambda r: r.__name__)
def test_host_transport_keeps_the_contract(routine: Routine, comm: MPI.Comm) -> None:
    """Every pair of ranks runs every routine."""
    transport = HostTransport(comm)
    for peer in pairs(comm):
        run_alone(routine(transport, comm.rank, peer))
    comm.Barrier()
