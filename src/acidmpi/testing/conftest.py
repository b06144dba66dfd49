"""Ranks of this suite begin each test together, and no rank waits for ever for others."""

import time
from collections.abc import Iterator

import pytest

GUARD_SECONDS = 120.0


@pytest.fixture(autouse=True)
def ranks_in_step(request: pytest.FixtureRequest) -> Iterator[None]:
    """Meet after each test with ranks; if a rank never comes, end all of them.

    A rank whose test fails leaves the others in the middle of a conversation, from which
    only the end of the job can release them.
    """
    if request.node.get_closest_marker("mpi") is None:
        yield
        return
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    yield
    request_all = comm.Ibarrier()
    deadline = time.monotonic() + GUARD_SECONDS
    while not request_all.Test():
        if time.monotonic() > deadline:
            print(f"rank {comm.rank}: others never ended {request.node.nodeid}")
            comm.Abort(1)
        time.sleep(1e-3)
    comm.Free()
