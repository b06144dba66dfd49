"""What all ranks do together between steps, in the caller's thread.

Waits are polls that end in the result, in a failure of any rank, or in a deadline.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.arrays import bfloat16
from acidmpi.arrays.accelerator import is_writable, store, to_host
from acidmpi.clocks import WallClock
from acidmpi.compression.protocol import Array, Mean
from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import GROWTH
from acidmpi.parallel.messages import LARGEST_COUNT, Channel, Traffic
from acidmpi.progress import Backoff, Deadline

LONGEST_SLEEP_SECONDS = 1e-3
SHORTEST_SLEEP_SECONDS = 20e-6
FLOATS = ("float64", "float32", "float16", "uint16")

_GIVEN_UP: list[object] = []
"""Operations that were waited for in vain: MPI may still write to their buffers."""


class Collectives:
    """Collective operations on one communicator; owned by the caller's thread.

    Args:
        comm: a communicator on which nobody else communicates.
        seconds: how long an operation may take.
        look: called while waiting; raises what has failed anywhere.
    """

    def __init__(
        self, comm: MPI.Comm, seconds: float, look: Callable[[], None]
    ) -> None:
        self._comm = comm
        self._seconds = seconds
        self._look = look
        self._channel = Channel(comm, Traffic())

    def vote(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        votes = np.array([flag], np.uint8)
        request = self._comm.Iallreduce(MPI.IN_PLACE, votes, op=MPI.MAX)
        self._wait([request], "a vote")
        return bool(votes[0])

    def broadcast(self, arrays: Sequence[Array]) -> None:
        """Copy rank 0's contiguous arrays into everyone's."""
        for array in arrays:
            check_contiguous(array)
        here = [to_host(array) for array in arrays]
        pieces = [p for array in here for p in _pieces(array.reshape(-1).view("u1"))]
        requests = [self._comm.Ibcast([piece, MPI.BYTE], root=0) for piece in pieces]
        self._wait(requests, "a broadcast")
        _bring_back(here, arrays)

    def average(self, arrays: Sequence[Array]) -> None:
        """Replace contiguous floating-point arrays by their means over ranks.

        Sixteen bits are summed as float32 and rounded once.
        """
        for array in arrays:
            check_contiguous(array)
            if array.dtype.name not in FLOATS:
                raise ConfigError(
                    f"arrays of {', '.join(FLOATS)} (as bfloat16) can be averaged, "
                    f"got {array.dtype}"
                )
        here = [to_host(array) for array in arrays]
        for array in here:
            flat = array.reshape(-1)
            if array.itemsize > 2:
                self._average(flat)
            elif array.dtype == np.uint16:
                flat[:] = bfloat16.encode(self._average(bfloat16.decode(flat)))
            else:
                flat[:] = self._average(flat.astype(np.float32))
        _bring_back(here, arrays)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, by rank. Values travel pickled."""
        mine = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.empty(self._comm.size, np.int64)
        request = self._comm.Iallgather(np.array([mine.size], np.int64), sizes)
        self._wait([request], "gathering sizes")
        if sizes.sum() > LARGEST_COUNT:
            raise ConfigError(
                f"states of all ranks may have {LARGEST_COUNT} bytes together, got "
                f"{sizes.sum()}; let each rank keep its own state_dict()"
            )
        everything = np.empty(int(sizes.sum()), np.uint8)
        ends = np.cumsum(sizes)
        places = [everything, sizes, ends - sizes, MPI.BYTE]
        request = self._comm.Iallgatherv([mine, MPI.BYTE], places)
        self._wait([request], "gathering states")
        parts = np.split(everything, ends[:-1])
        return [pickle.loads(part.tobytes()) for part in parts]

    def _average(self, flat: Array) -> Array:
        pending = self._channel.post(Mean(flat))
        self._until(pending.test, "an average", (pending, flat))
        return flat

    def _wait(self, requests: list[MPI.Request], what: str) -> None:
        self._until(lambda: MPI.Request.Testall(requests), what, requests)

    def _until(self, ready: Callable[[], bool], what: str, keep: object) -> None:
        deadline = Deadline(self._seconds, WallClock(), what)
        backoff = Backoff(SHORTEST_SLEEP_SECONDS, LONGEST_SLEEP_SECONDS, GROWTH)
        moved = self._channel.moved
        try:
            while not ready():
                self._look()
                deadline.check()
                if self._channel.moved != moved:
                    moved = self._channel.moved
                    backoff.reset()
                else:
                    time.sleep(backoff.next())
        except BaseException:
            _GIVEN_UP.append(keep)
            raise


def _bring_back(here: Sequence[Array], arrays: Sequence[Array]) -> None:
    """Copy what was changed in host memory to the arrays that lie elsewhere."""
    for changed, array in zip(here, arrays, strict=True):
        if changed is not array:
            store(array, changed)


def check_contiguous(array: Array) -> None:
    """Raise `ConfigError` unless messages can read and write an array in place."""
    if not (array.flags.c_contiguous and is_writable(array)):
        raise ConfigError(
            f"arrays must be contiguous and writable, got shape {array.shape} with "
            f"strides {array.strides}; pass numpy.ascontiguousarray(x)"
        )


def _pieces(data: Array) -> list[Array]:
    """Bytes in pieces that MPI can count."""
    return [data[k : k + LARGEST_COUNT] for k in range(0, data.size, LARGEST_COUNT)]
