"""The sum of a long array over all ranks, by point-to-point messages in chunks.

Rank k owns the k-th part of the array. Every rank sends its own numbers of that part to
rank k, which adds them in order of rank and sends the sums to everyone: a reduce-scatter
and an all-gather in one pipeline, with 2(n−1)/n of the array sent by each of n ranks, the
least possible. Chunks stay in cache between their arrival and their sending. Each sum is
made once, on one rank, in a fixed order, so that all ranks hold the same bits whatever
the timing and however arrays are cut.

Why not `Iallreduce`: docs/data_parallel_internals.md has the measurements.
"""

from collections import deque

import numpy as np
from mpi4py import MPI

from acidmpi.compression.protocol import Array

PARTIAL_TAG = 1
"""Numbers of one rank, on their way to the owner of their part."""

SUM_TAG = 2
"""Sums, on their way from their owner."""

DEPTH = 4
"""Chunks on the wire in each direction, per peer."""

LARGEST_CHUNK_BYTES = 1 << 19
STAGING_BYTES = 8 << 20
ALIGNMENT_BYTES = 64


def chunk_bytes(size: int, longest: int | None = None) -> int:
    """Bytes of a chunk among so many ranks; staging memory is bounded.

    Args:
        size: number of ranks.
        longest: most bytes of a message; None: any.
    """
    share = STAGING_BYTES // (DEPTH * max(size - 1, 1))
    most = min(share, LARGEST_CHUNK_BYTES, longest or LARGEST_CHUNK_BYTES)
    return max(most // ALIGNMENT_BYTES, 1) * ALIGNMENT_BYTES


def parts_of(array: Array, size: int) -> list[Array]:
    """The parts that ranks own: equal but for alignment; the last may be empty."""
    step = ALIGNMENT_BYTES // array.itemsize
    length = -(-array.size // (size * step)) * step
    return [array[k * length : (k + 1) * length] for k in range(size)]


def chunks_of(part: Array, size_bytes: int) -> list[Array]:
    """A part cut into chunks of so many bytes."""
    length = size_bytes // part.itemsize
    return [part[k : k + length] for k in range(0, part.size, length)]


class Outbound:
    """One peer's part: own numbers go to the peer, and its sums come back in place.

    Args:
        comm: where messages go.
        peer: who owns the part.
        part: its elements in this rank's array.
        chunk: bytes of a chunk.
    """

    def __init__(self, comm: MPI.Comm, peer: int, part: Array, chunk: int) -> None:
        self._comm = comm
        self._peer = peer
        self._chunks = chunks_of(part, chunk)
        self._next = 0
        self._sending: deque[tuple[Array, MPI.Request]] = deque()
        self._returning: deque[MPI.Request] = deque()
        while self._next < min(DEPTH, len(self._chunks)):
            self._send()

    @property
    def done(self) -> bool:
        """Whether all sums are here."""
        return not self._sending and not self._returning

    def advance(self) -> bool:
        """Do what can be done; tell whether anything moved."""
        moved = False
        while self._sending and self._sending[0][1].Test():
            chunk, _ = self._sending.popleft()
            back = self._comm.Irecv([chunk, MPI.BYTE], self._peer, SUM_TAG)
            self._returning.append(back)
            moved = True
            if self._next < len(self._chunks):
                self._send()
        while self._returning and self._returning[0].Test():
            self._returning.popleft()
            moved = True
        return moved

    def _send(self) -> None:
        chunk = self._chunks[self._next]
        request = self._comm.Isend([chunk, MPI.BYTE], self._peer, PARTIAL_TAG)
        self._sending.append((chunk, request))
        self._next += 1


class Owned:
    """This rank's own part: others' numbers come, and the sums go to everyone.

    Args:
        comm: where messages go.
        part: its elements in this rank's array.
        staging: bytes for `DEPTH` chunks of each peer.
        divisor: what sums are divided by before they go out.
        chunk: bytes of a chunk.
    """

    def __init__(
        self, comm: MPI.Comm, part: Array, staging: Array, divisor: int, chunk: int
    ) -> None:
        self._comm = comm
        self._divisor = divisor
        self._peers = [p for p in range(comm.size) if p != comm.rank]
        self._chunks = chunks_of(part, chunk)
        shape = (DEPTH, len(self._peers), chunk // part.itemsize)
        self._staging = staging.view(part.dtype).reshape(shape)
        self._next = 0
        self._receiving: deque[list[MPI.Request]] = deque()
        self._sending: deque[MPI.Request] = deque()
        for number in range(min(DEPTH, len(self._chunks))):
            self._receive(number)

    @property
    def done(self) -> bool:
        """Whether all sums are made and MPI has taken them."""
        return not self._receiving and not self._sending

    def advance(self) -> bool:
        """Do what can be done; tell whether anything moved."""
        moved = False
        while self._receiving and MPI.Request.Testall(self._receiving[0]):
            self._receiving.popleft()
            self._sum(self._next)
            self._next += 1
            moved = True
        while self._sending and self._sending[0].Test():
            self._sending.popleft()
            moved = True
        return moved

    def _receive(self, number: int) -> None:
        """Expect chunk `number` of everyone."""
        rows = self._rows(number)
        self._receiving.append(
            [
                self._comm.Irecv([row, MPI.BYTE], peer, PARTIAL_TAG)
                for peer, row in zip(self._peers, rows, strict=True)
            ]
        )

    def _sum(self, number: int) -> None:
        chunk = self._chunks[number]
        add_in_order(self._rows(number), chunk, self._comm.rank)
        if self._divisor > 1:
            chunk /= self._divisor
        for peer in self._peers:
            self._sending.append(self._comm.Isend([chunk, MPI.BYTE], peer, SUM_TAG))
        if number + DEPTH < len(self._chunks):
            self._receive(number + DEPTH)

    def _rows(self, number: int) -> list[Array]:
        """Staging of chunk `number`, by peer."""
        return list(self._staging[number % DEPTH, :, : self._chunks[number].size])


def add_in_order(rows: list[Array], own: Array, rank: int) -> None:
    """Let `own` become ((x₀ + x₁) + x₂) + …, where x_rank is `own` and `rows` the others.

    Rows are overwritten.
    """
    operands = [*rows[:rank], own, *rows[rank:]]
    total = operands[0]
    for number, operand in enumerate(operands[1:], start=1):
        out = own if number >= rank else total
        np.add(total, operand, out=out)
        total = out


class LongSum:
    """The sum of one array, under way from its making on.

    All ranks make their sums on one communicator in the same order, and advance one after
    the other: messages of one pair of ranks are matched by order alone.

    Args:
        comm: where messages go; of two ranks or more.
        array: float64 or float32, one-dimensional, contiguous; replaced by the sum.
        staging: `staging_bytes(comm.size, chunk)` bytes that no other sum uses meanwhile.
        divisor: what the sum is divided by.
        chunk: bytes of a chunk, the same on all ranks: see `chunk_bytes`.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        array: Array,
        staging: Array,
        divisor: int,
        chunk: int,
    ) -> None:
        parts = parts_of(array, comm.size)
        self._owned = Owned(comm, parts[comm.rank], staging, divisor, chunk)
        self._flows = [
            Outbound(comm, peer, part, chunk)
            for peer, part in enumerate(parts)
            if peer != comm.rank
        ]

    @property
    def done(self) -> bool:
        """Whether `array` holds the sum and MPI needs it no more."""
        return self._owned.done and all(flow.done for flow in self._flows)

    def advance(self) -> bool:
        """Do what can be done; tell whether anything moved."""
        moved = self._owned.advance()
        for flow in self._flows:
            moved |= flow.advance()
        return moved


def staging_bytes(size: int, chunk: int) -> int:
    """Bytes of memory in which a sum receives others' numbers, in chunks of so many."""
    return DEPTH * max(size - 1, 1) * chunk
