"""Reductions and broadcasts of arrays, by name, for those who do not import MPI."""

from typing import Any

from mpi4py import MPI
from numpy.typing import NDArray

Array = NDArray[Any]
Comm = MPI.Comm
Request = MPI.Request
MPIError = MPI.Exception


def start_sum(comm: Comm, mine: Array, result: Array) -> Request:
    """Begin to sum `mine` over all ranks into every rank's `result`."""
    return comm.Iallreduce(mine, result, op=MPI.SUM)


def start_sum_at_root(comm: Comm, mine: Array, result: Array) -> Request:
    """Begin to sum `mine` over all ranks into rank 0's `result`."""
    return comm.Ireduce(mine, result if comm.rank == 0 else None, op=MPI.SUM, root=0)


def start_broadcast(comm: Comm, array: Array) -> Request:
    """Begin to copy rank 0's contiguous `array` into everyone's."""
    return comm.Ibcast([array.view("u1"), MPI.BYTE], root=0)


def start_sending(comm: Comm, array: Array, peer: int, tag: int) -> Request:
    """Begin to send a contiguous `array` to `peer`."""
    return comm.Isend([array.view("u1"), MPI.BYTE], peer, tag)


def start_receiving(comm: Comm, array: Array, peer: int, tag: int) -> Request:
    """Begin to receive a contiguous `array` from `peer`."""
    return comm.Irecv([array.view("u1"), MPI.BYTE], peer, tag)
