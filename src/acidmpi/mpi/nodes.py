"""Which ranks share a machine, how many cores they share, what joins the machines."""

from dataclasses import dataclass

from mpi4py import MPI

from acidmpi.mpi.collectives import allgather
from acidmpi.mpi.fabric import has_fabric
from acidmpi.progress import available_cores


@dataclass(frozen=True)
class Node:
    """This rank's place on its machine."""

    local_rank: int
    """Number of this rank among those of its machine."""

    local_size: int
    """Ranks of the communicator on this machine."""

    cores: int
    """Cores that this rank may run on."""

    beside: tuple[bool, ...] = ()
    """By rank, whether it is on this machine."""

    fabric: bool = False
    """Whether all machines have more than TCP between them, see `mpi.fabric`."""

    @property
    def ranks_per_core(self) -> float:
        """How many ranks share a core; below 1 when there are cores to spare."""
        return self.local_size / self.cores


def find_node(comm: MPI.Comm, seconds: float) -> Node:
    """Compare host names over `comm` (collective)."""
    host = MPI.Get_processor_name()
    mine = host, has_fabric()
    every = allgather(comm, mine, seconds, "finding the ranks of each machine")
    hosts = [name for name, _ in every]
    return Node(
        local_rank=hosts[: comm.rank].count(host),
        local_size=hosts.count(host),
        cores=available_cores(),
        beside=tuple(name == host for name in hosts),
        fabric=all(fabric for _, fabric in every),
    )
