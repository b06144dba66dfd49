"""Which ranks share a machine, and how many cores they share."""

from dataclasses import dataclass

from mpi4py import MPI

from acidmpi.mpi.collectives import allgather
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

    @property
    def ranks_per_core(self) -> float:
        """How many ranks share a core; below 1 when there are cores to spare."""
        return self.local_size / self.cores


def find_node(comm: MPI.Comm, seconds: float) -> Node:
    """Compare host names over `comm` (collective)."""
    host = MPI.Get_processor_name()
    hosts = allgather(comm, host, seconds, "finding the ranks of each machine")
    return Node(
        local_rank=hosts[: comm.rank].count(host),
        local_size=hosts.count(host),
        cores=available_cores(),
    )
