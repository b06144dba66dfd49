"""A program of one's own: a rank dies while a `Gossip` is made, the others make another."""

import os

import numpy as np
from mpi4py import MPI

from acidmpi import Gossip
from acidmpi.errors import DiedAtStart
from acidmpi.mpi.survival import end_within


def train(comm):
    x = np.full(10, float(comm.rank))
    fault = "rank=1 at=start:parameters do=kill" if comm.size == 3 else None
    with Gossip(x, comm=comm, fault_tolerant=True, fault=fault) as gossip:
        for _ in range(20):
            gossip.apply(np.zeros(10))
    return x


if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    try:
        train(comm)
    except DiedAtStart as death:
        found = train(comm.Shrink())
        told = f"of {death.peer}: mean {found.mean()} on rank {comm.rank}\n"
        os.write(1, told.encode())
    end_within(10)
