"""Torch's process group over gloo, for the ranks of an MPI communicator."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mpi4py import MPI


@contextmanager
def gloo(comm: MPI.Comm, seconds: float) -> Iterator[None]:
    """Torch's default process group, of all ranks of `comm`, while this is open.

    Collective.

    Args:
        comm: the ranks.
        seconds: how long torch may wait for one of them.
    """
    timeout = timedelta(seconds=seconds)
    dist.init_process_group(
        "gloo",
        store=_meeting_point(comm, timeout),
        rank=comm.rank,
        world_size=comm.size,
        timeout=timeout,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _empty_file() -> str:
    with tempfile.NamedTemporaryFile(prefix="acidmpi-", delete=False) as file:
        return file.name


def _meeting_point(comm: MPI.Comm, timeout: timedelta) -> Any:
    """A file of rank 0's where all ranks see it, else a port that it chooses."""
    path = Path(comm.bcast(_empty_file() if comm.rank == 0 else ""))
    if comm.allreduce(path.exists(), MPI.LAND):
        # The last rank to let go of the file removes it.
        return dist.FileStore(str(path), comm.size)  # type: ignore[attr-defined]
    if comm.rank == 0:
        path.unlink(missing_ok=True)
    host, first = comm.bcast(socket.gethostname()), comm.rank == 0
    make = partial(
        dist.TCPStore,  # type: ignore[attr-defined]
        host,
        world_size=comm.size,
        timeout=timeout,
        wait_for_workers=False,
    )
    store = make(port=0, is_master=True) if first else None
    port = comm.bcast(store.port if store else None)
    return store or make(port=port, is_master=False)
