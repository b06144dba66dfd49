"""One process of a trial: `python -m … FOLDER KIND DEVICE SECONDS`.

It sends random bytes from one buffer and receives as many into another, to and from its
peer or itself, and compares them. As soon as MPI runs, it leaves the number of processes in
`FOLDER/<rank>.started`, and at the end what it found in `FOLDER/<rank>.json`. It ends by
itself after SECONDS, whatever MPI does meanwhile.
"""

import faulthandler
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from acidmpi.transport.trial.driver import NoDevice
from acidmpi.transport.trial.memory import Bytes, Memory, memory_of

SIZES = (1, 4096, 3 << 20, (8 << 20) + 7)
"""Short messages and long ones take different ways."""

PAUSE_SECONDS = 1e-4
SHOWN = 3


def main(arguments: list[str]) -> int:
    """Take part in one trial."""
    folder, kind, device, seconds = arguments
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(float(seconds), exit=True, file=nowhere)
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        _leave(Path(folder, f"{comm.rank}.started"), comm.size)
        try:
            memory = memory_of(kind, int(device) + comm.rank)
            fault = exchange(comm, memory, float(seconds))
            found = {"tried": True, "fault": fault}
        except NoDevice as error:
            found = {"tried": False, "fault": str(error)}
        _leave(Path(folder, f"{comm.rank}.json"), found)
        comm.Barrier()
        MPI.Finalize()
        faulthandler.cancel_dump_traceback_later()
    return 0


def _leave(path: Path, found: Any) -> None:
    """Write a file that is whole or not there."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(found))
    draft.replace(path)


def exchange(comm: Any, memory: Memory, seconds: float) -> str:
    """Messages of all sizes, both ways at once; what is wrong with them, or nothing.

    Args:
        comm: one rank, which is its own peer, or two.
        memory: where the buffers are.
        seconds: how long all of it may take.
    """
    peer = (comm.rank + 1) % comm.size
    end = time.monotonic() + seconds
    for number, size in enumerate(SIZES):
        sent, received = memory.allocate(size), memory.allocate(size)
        memory.put(sent, values(comm.rank, number, size))
        memory.put(received, np.invert(values(comm.rank, number, size)))
        _transfer(comm, peer, (sent, received), size, end)
        fault = difference(values(peer, number, size), memory.get(received, size))
        if fault:
            return f"{size} bytes: {fault}"
    return ""


def _transfer(
    comm: Any, peer: int, buffers: tuple[int, int], size: int, end: float
) -> None:
    from mpi4py import MPI

    sent, received = (MPI.buffer.fromaddress(place, size) for place in buffers)
    requests = [
        comm.Irecv([received, MPI.BYTE], peer),
        comm.Isend([sent, MPI.BYTE], peer),
    ]
    while not MPI.Request.Testall(requests):
        if time.monotonic() > end:
            raise TimeoutError(f"a message of {size} bytes did not arrive")
        time.sleep(PAUSE_SECONDS)


def values(rank: int, number: int, size: int) -> Bytes:
    """Random bytes that `rank` sends as its message `number`; the peer knows them."""
    return np.random.default_rng([rank, number]).integers(0, 256, size, np.uint8)


def difference(expected: Bytes, arrived: Bytes) -> str:
    """Where two arrays differ, in words; nothing where they are equal."""
    wrong = np.flatnonzero(expected != arrived)
    if not wrong.size:
        return ""
    places = ", ".join(str(place) for place in wrong[:SHOWN])
    return f"{wrong.size} arrived wrong, the first at {places}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
