"""Messages of compressors as MPI calls: posted without waiting, then tested.

A `Channel` belongs to one thread. On one communicator all ranks post in the same order;
that is all MPI asks for, and what `loop` takes care of.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from mpi4py import MPI

from acidmpi.arrays.accelerator import is_writable
from acidmpi.compression.protocol import (
    AllToAll,
    Array,
    Gather,
    Mean,
    Message,
    Sum,
    Swap,
)
from acidmpi.errors import ConfigError
from acidmpi.parallel.allreduce import LongSum, chunk_bytes, staging_bytes

LONG_SUM_BYTES = 1 << 20
"""From this size on a sum goes by `allreduce.LongSum`."""

SWAP_TAG = 7
"""Apart from what `allreduce` sends between two ranks."""

LARGEST_COUNT = 2**31 - 1
"""MPI counts in 32 bits."""


@dataclass
class Traffic:
    """What was posted so far; owned by the thread that posts."""

    messages: int = 0
    """Messages of compressors."""

    bytes_sent: int = 0
    """What one rank sends for them in the standard algorithms, see `sent_bytes`."""


class Pending(Protocol):
    """A message under way."""

    reply: Array
    """What the compressor gets, once `test()` has said so."""

    def test(self) -> bool:
        """Whether the reply is complete; moves the message on."""
        ...


def sent_bytes(message: Message, size: int) -> int:
    """Bytes that each of `size` ranks sends for a message of N bytes.

    All-reduce by reduce-scatter and all-gather: 2(n−1)/n·N. All-gather: (n−1)·N.
    All-to-all: (n−1)/n·N. These are the least volumes for long messages (Thakur,
    Rabenseifner and Gropp 2005, section 2); for short ones MPI may choose otherwise.
    To k ranks by name: k·N.
    """
    total = message.array.nbytes
    match message:
        case Sum() | Mean():
            return 2 * (size - 1) * total // size
        case Gather():
            return (size - 1) * total
        case AllToAll():
            return (size - 1) * total // size
        case Swap():
            return len(message.targets) * total


class Posting(Protocol):
    """Posts messages: a `Channel`, or what brings them to one."""

    @property
    def size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def moved(self) -> int:
        """Grows when a part of a message moves."""
        ...

    def post(self, message: Message) -> Pending:
        """Start a message."""
        ...


class Channel:
    """Posts messages on one communicator.

    Args:
        comm: a communicator on which nobody else communicates.
        traffic: where messages are counted.
        longest: most bytes of a message of a long sum, the same on all ranks; None: any.
    """

    def __init__(
        self, comm: MPI.Comm, traffic: Traffic, longest: int | None = None
    ) -> None:
        self._comm = comm
        self._chunk = chunk_bytes(comm.size, longest)
        self._traffic = traffic
        self._sums: deque[PendingSum] = deque()
        self._staging = np.empty(0, np.uint8)
        self.size = comm.size
        """Number of ranks."""
        self.moved = 0
        """Grows when chunks of long sums move."""

    def post(self, message: Message) -> Pending:
        """Start a message.

        Raises:
            ConfigError: it is not as `compression.protocol` demands, or too large.
        """
        check(message, self._comm.size)
        self._traffic.messages += 1
        self._traffic.bytes_sent += sent_bytes(message, self._comm.size)
        if self._comm.size == 1:
            return Alone(message)
        if isinstance(message, Sum | Mean) and message.array.nbytes >= LONG_SUM_BYTES:
            return self._post_long(message.array, divisor_of(message, self._comm.size))
        if isinstance(message, Swap):
            return PostedSwap(self._comm, message)
        return Posted(self._comm, message)

    def _post_long(self, array: Array, divisor: int) -> Pending:
        if not self._staging.size:
            size = staging_bytes(self._comm.size, self._chunk)
            self._staging = np.empty(size, np.uint8)
        start = partial(LongSum, self._comm, array, self._staging, divisor, self._chunk)
        pending = PendingSum(array, self._sums, start, self)
        self._sums.append(pending)
        return pending


class Alone:
    """A message of a rank that has no others."""

    def __init__(self, message: Message) -> None:
        array = message.array
        self.reply = array[None] if isinstance(message, Gather) else array
        if isinstance(message, Swap):
            self.reply = message.received

    def test(self) -> bool:
        """At once."""
        return True


class Posted:
    """A message that MPI's own collective operation carries."""

    def __init__(self, comm: MPI.Comm, message: Sum | Mean | Gather | AllToAll) -> None:
        mine = message.array
        self._keep = mine
        self._divisor = divisor_of(message, comm.size)
        match message:
            case Sum() | Mean():
                self.reply = mine
                self._request = comm.Iallreduce(MPI.IN_PLACE, mine, op=MPI.SUM)
            case Gather():
                self.reply = np.empty((comm.size, mine.size), mine.dtype)
                self._request = comm.Iallgather(*_as_bytes(mine, self.reply))
            case AllToAll():
                self.reply = np.empty_like(mine)
                self._request = comm.Ialltoall(*_as_bytes(mine, self.reply))

    def test(self) -> bool:
        """Whether MPI is done with it."""
        if not self._request.Test():
            return False
        if self._divisor > 1:
            self.reply /= self._divisor
            self._divisor = 1
        return True


def divisor_of(message: Message, size: int) -> int:
    """What the sum of a message is divided by."""
    return size if isinstance(message, Mean) else 1


class PostedSwap:
    """One message to each target and one from each source; receives first, to be ready.

    Two ranks' messages are told apart by their order alone, which is the same at both.
    """

    def __init__(self, comm: MPI.Comm, message: Swap) -> None:
        self._mine, self.reply = message.array, message.received
        self._requests = [
            comm.Irecv([row, MPI.BYTE], source, SWAP_TAG)
            for row, source in zip(message.received, message.sources, strict=True)
        ]
        self._requests += [
            comm.Isend([self._mine, MPI.BYTE], target, SWAP_TAG)
            for target in message.targets
        ]

    def test(self) -> bool:
        """Whether all that was sent is gone and all that was waited for is here."""
        return bool(MPI.Request.Testall(self._requests))


class PendingSum:
    """A long sum: waits for its turn on the communicator, then moves chunk by chunk."""

    def __init__(
        self,
        array: Array,
        queue: "deque[PendingSum]",
        start: Callable[[], LongSum],
        channel: Channel,
    ) -> None:
        self.reply = array
        self._queue = queue
        self._start = start
        self._channel = channel
        self._sum: LongSum | None = None
        self._done = False

    def test(self) -> bool:
        """Move chunks, if it is this sum's turn; whether all are there."""
        if self._done or self._queue[0] is not self:
            return self._done
        if self._sum is None:
            self._sum = self._start()
        self._channel.moved += self._sum.advance()
        if self._sum.done:
            self._done = True
            self._queue.popleft()
        return self._done


def check(message: Message, size: int) -> None:
    """Raise `ConfigError` unless a message is as `compression.protocol` demands."""
    array = message.array
    rows = 2 if isinstance(message, AllToAll) else 1
    if array.ndim != rows or not array.flags.c_contiguous:
        raise ConfigError(
            f"arrays of {type(message).__name__} messages must be contiguous and have "
            f"{rows} dimension(s), got shape {array.shape} with strides {array.strides}"
        )
    if isinstance(message, AllToAll) and len(array) != size:
        raise ConfigError(
            f"AllToAll needs one row for each of {size} ranks, got {len(array)}"
        )
    if isinstance(message, Swap):
        _check_swap(message, size)
    if isinstance(message, Sum | Mean):
        if array.dtype not in (np.float32, np.float64):
            raise ConfigError(f"only float32 and float64 are summed, got {array.dtype}")
    elif array.nbytes > LARGEST_COUNT:
        raise ConfigError(
            f"a {type(message).__name__} message may have {LARGEST_COUNT} bytes, got "
            f"{array.nbytes}; lower bucket_bytes, or compress more"
        )


def _check_swap(message: Swap, size: int) -> None:
    array, received = message.array, message.received
    wanted = (len(message.sources), array.size)
    if (received.shape, received.dtype) != (wanted, array.dtype) or not (
        received.flags.c_contiguous and is_writable(received)
    ):
        raise ConfigError(
            f"Swap receives into a writable contiguous array of shape {wanted} and type "
            f"{array.dtype}, got {received.shape} and {received.dtype}"
        )
    for peer in (*message.targets, *message.sources):
        if not 0 <= peer < size:
            raise ConfigError(f"Swap is among {size} ranks, got rank {peer}")


def _as_bytes(mine: Array, everyone: Array) -> tuple[list[object], list[object]]:
    return [mine, MPI.BYTE], [everyone, MPI.BYTE]
