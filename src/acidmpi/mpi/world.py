"""All processes of a job, and collectives for those who do not import MPI.

Only `acidmpi.compat` may use `world`: the packages whose API it repeats take no
communicator. Everyone else is handed one by the caller.

Every function that starts something is collective over `comm`; its arrays belong to MPI
until the request is complete.
"""

from typing import Any, Literal

from mpi4py import MPI
from numpy.typing import NDArray

Array = NDArray[Any]
Counts = list[int]
Operator = Literal["sum", "min", "max", "product"]

OPERATORS = {
    "sum": MPI.SUM,
    "min": MPI.MIN,
    "max": MPI.MAX,
    "product": MPI.PROD,
}


def world() -> MPI.Comm:
    """MPI_COMM_WORLD."""
    return MPI.COMM_WORLD


def host_name() -> str:
    """Name of the machine this process runs on."""
    return MPI.Get_processor_name()


def start_reduction(
    comm: MPI.Comm, mine: Array, result: Array, operator: Operator
) -> MPI.Request:
    """Begin to reduce everyone's `mine` into everyone's `result` of the same shape."""
    return comm.Iallreduce(mine, result, op=OPERATORS[operator])


def start_gather(comm: MPI.Comm, mine: Array, result: Array) -> MPI.Request:
    """Begin to put rank k's `mine` into row k of everyone's `result`."""
    return comm.Iallgather(mine, result)


def start_uneven_gather(
    comm: MPI.Comm, mine: Array, result: Array, counts: Counts
) -> MPI.Request:
    """Begin to chain everyone's bytes `mine`, rank k's of length counts[k]."""
    return comm.Iallgatherv([mine, MPI.BYTE], [result, counts, None, MPI.BYTE])


def start_uneven_exchange(
    comm: MPI.Comm, mine: Array, sent: Counts, result: Array, received: Counts
) -> MPI.Request:
    """Begin to send sent[k] bytes of `mine` to rank k, received[k] coming from there."""
    return comm.Ialltoallv(
        [mine, (sent, None), MPI.BYTE], [result, (received, None), MPI.BYTE]
    )


def start_broadcast_from(comm: MPI.Comm, array: Array, root: int) -> MPI.Request:
    """Begin to copy the bytes `array` of rank `root` into everyone's."""
    return comm.Ibcast([array, MPI.BYTE], root=root)
