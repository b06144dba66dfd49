"""The transport contract between all pairs of ranks of MPI_COMM_WORLD."""

from collections.abc import Iterator

import pytest
from mpi4py import MPI

from acidmpi.clocks import WallClock
from acidmpi.progress import Deadline, Pace, Steps, until
from acidmpi.testing.transports import (
    CONTRACT,
    PATIENCE_SECONDS,
    Routine,
    run_alone,
    takes_back,
)
from acidmpi.transport.host import HostTransport

pytestmark = pytest.mark.mpi


def turns(rank: int, size: int) -> Iterator[int]:
    """Peers of `rank`, one after the other: in each turn everyone has one of its own.

    Each pair meets in exactly one turn; now and then a rank's peer is itself.
    """
    for turn in range(size):
        yield (turn - rank) % size


@pytest.fixture(name="comm")
def duplicate() -> Iterator[MPI.Comm]:
    """A communicator of the test's own."""
    comm = MPI.COMM_WORLD.Dup()
    yield comm
    comm.Free()


@pytest.fixture(name="transport", params=[None, 1001], ids=["whole", "pieces"])
def host_transport(comm: MPI.Comm, request: pytest.FixtureRequest) -> HostTransport:
    """One that sends each buffer as one message, and one that cuts it up."""
    return HostTransport(comm, lambda _: request.param)


@pytest.mark.parametrize("routine", CONTRACT, ids=lambda r: r.__name__)
def test_host_transport_keeps_the_contract(
    routine: Routine, comm: MPI.Comm, transport: HostTransport
) -> None:
    """Every pair of ranks runs every routine."""
    for peer in turns(comm.rank, comm.size):
        run_alone(routine(transport, comm.rank, peer))


def meeting(comm: MPI.Comm) -> Steps[None]:
    """Returns when all ranks are here."""
    deadline = Deadline(PATIENCE_SECONDS, WallClock(), "the others")
    yield from until(comm.Ibarrier().Test, deadline, Pace.POLL)


def test_host_transport_takes_back_what_one_side_has_begun(
    comm: MPI.Comm, transport: HostTransport
) -> None:
    """Between each pair of ranks, the lower one alone."""
    for peer in turns(comm.rank, comm.size):
        run_alone(takes_back(transport, comm.rank, peer, lambda: meeting(comm)))


@pytest.mark.parametrize("size", range(1, 12))
def test_every_pair_has_its_turn(size: int) -> None:
    """The pairing of the ranks leaves nobody out."""
    each = [list(turns(rank, size)) for rank in range(size)]
    for rank, peers in enumerate(each):
        assert sorted(peers) == list(range(size))
        assert all(each[peer][turn] == rank for turn, peer in enumerate(peers))
