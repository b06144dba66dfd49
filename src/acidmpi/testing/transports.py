"""What every transport must do: one list of routines, run on each of them.

A routine is one rank's side, written as a generator; who runs it advances the sides in
turn (ranks of one process) or only its own (ranks of MPI).
"""

from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.accelerator import Accelerator
from acidmpi.clocks import WallClock
from acidmpi.progress import Deadline, Pace, Steps, until
from acidmpi.transport.protocol import Pending, Transport

SIZES = (1, 7, 1000, 300_000)
DTYPES = ("float32", "float64", "float16", "uint16")
WITHDRAWN = (10, 300_000, 1000)
"""Sizes of transfers, in numbers, that go with their envelope or after it."""

LOOKS = 200
PATIENCE_SECONDS = 30.0

Routine = Callable[[Transport, int, int], Steps[None]]
"""(transport, rank, peer) → one side of the conversation."""


def values_of(rank: int, size: int, dtype: str, number: int = 0) -> NDArray[Any]:
    """What `rank` sends as its message `number`: random bits, known to its peer."""
    generator = np.random.default_rng([rank, size, number])
    width = np.dtype(dtype).itemsize
    return generator.integers(0, 256, size * width, np.uint8).view(dtype)


def arrived(pending: Pending) -> Steps[None]:
    """Wait for one transfer."""
    deadline = Deadline(PATIENCE_SECONDS, WallClock(), "a transfer of the contract")
    yield from until(pending.test, deadline, Pace.POLL)


def delivers_both_directions(transport: Transport, rank: int, peer: int) -> Steps[None]:
    """Every size and type arrives bit for bit; a wrong one leaves no peer waiting."""
    wrong = []
    for size in SIZES:
        for dtype in DTYPES:
            received = np.zeros(size, dtype)
            sent = values_of(rank, size, dtype)
            yield from arrived(transport.post(peer, sent, received))
            expected = values_of(peer, size, dtype)
            if received.tobytes() != expected.tobytes():
                wrong.append((size, dtype))
    assert not wrong, wrong[0]


def keeps_order(transport: Transport, rank: int, peer: int) -> Steps[None]:
    """Transfers posted together are matched in the order of posting."""
    received = [np.zeros(500, "float32") for _ in range(8)]
    pending = [
        transport.post(peer, values_of(rank, 500, "float32", k), received[k])
        for k in range(8)
    ]
    for transfer in reversed(pending):
        yield from arrived(transfer)
    for k in range(8):
        expected = values_of(peer, 500, "float32", k)
        assert received[k].tobytes() == expected.tobytes(), k


def gives_buffers_back(transport: Transport, rank: int, peer: int) -> Steps[None]:
    """After completion both buffers may be written without harm to the message."""
    sent, received = np.zeros(2000, "float32"), np.zeros(2000, "float32")
    for number in range(20):
        sent[:] = number + rank
        yield from arrived(transport.post(peer, sent, received))
        sent[:] = -1.0
        assert (received == number + peer).all(), number
        received[:] = -2.0


def does_not_finish_early(transport: Transport, rank: int, peer: int) -> Steps[None]:
    """The side that is first sees no completion before the other has posted."""
    sent, received = np.ones(10, "float32"), np.zeros(10, "float32")
    if rank > peer:
        for _ in range(50):
            yield Pace.POLL
    pending = transport.post(peer, sent, received)
    yield from arrived(pending)
    assert (received == 1.0).all()
    assert pending.test()


def takes_back(
    transport: Transport, rank: int, peer: int, meet: Callable[[], Steps[None]]
) -> Steps[None]:
    """What one side alone has begun is withdrawn and drained; the next is not mixed up.

    Not part of the contract's list, because the sides must meet in it by other means.

    Args:
        transport: under test.
        rank: this side; the lower one begins alone.
        peer: the other one.
        meet: returns when both sides have called it.
    """
    rooms = [np.full(size, -1.0, "float32") for size in WITHDRAWN]
    begun: list[Pending] = []  # they hold the memory that is being sent
    if rank < peer:
        for number, room in enumerate(rooms):
            sent = values_of(rank, room.size, "float32", number)
            begun.append(transport.post(peer, sent, room))
        yield from _withdrawn(transport, begun)
    yield from meet()
    if rank > peer:
        transport.drain(peer, [room.nbytes for room in rooms])
    if rank != peer:
        received, sent = np.zeros(10, "float32"), values_of(rank, 10, "float32", 9)
        yield from arrived(transport.post(peer, sent, received))
        assert received.tobytes() == values_of(peer, 10, "float32", 9).tobytes()
        deadline = Deadline(PATIENCE_SECONDS, WallClock(), "what was withdrawn")
        yield from until(transport.is_quiet, deadline, Pace.POLL)
    begun.clear()
    assert all((room == -1.0).all() for room in rooms)


def _withdrawn(transport: Transport, begun: Sequence[Pending]) -> Steps[None]:
    for _ in range(LOOKS):  # by then all of it is on its way
        assert not any(transfer.test() for transfer in begun)
        yield Pace.POLL
    assert transport.withdraw() == len(begun)


CONTRACT: tuple[Routine, ...] = (
    delivers_both_directions,
    keeps_order,
    gives_buffers_back,
    does_not_finish_early,
)


def run_together(sides: Sequence[Steps[None]]) -> None:
    """Advance the sides of one conversation in turn until all are over."""
    going = list(sides)
    while going:
        for side in list(going):
            if next(side, None) is None:
                going.remove(side)


def run_alone(side: Steps[None]) -> None:
    """Advance this rank's side; the other one runs elsewhere."""
    for _ in side:
        pass


class Carried:
    """A transport of device memory, run by routines whose arrays are in the host's.

    Args:
        transport: under test.
        accelerator: the device.
        stream: the one that the transport works with.
    """

    def __init__(
        self, transport: Transport, accelerator: Accelerator, stream: Any
    ) -> None:
        self.name = transport.name
        self._transport, self._accelerator = transport, accelerator
        self._stream = stream

    def post(
        self, peer: int, send: NDArray[Any], receive: NDArray[Any]
    ) -> "_CarriedPending":
        """Copy `send` to the device first; see `Transport.post`."""
        device, stream = self._accelerator, self._stream
        room = device.pinned(send.nbytes).view(send.dtype)
        room[...] = send
        with device.on(stream):
            there = device.empty(send.size, send.dtype)
            into = device.empty(receive.size, receive.dtype)
        device.copy(there, room, stream)
        copied = device.record(stream)
        pending = self._transport.post(peer, there, into)
        return _CarriedPending(
            device, stream, pending, receive, (room, there, into, copied)
        )

    def withdraw(self) -> int:
        """See `Transport.withdraw`."""
        return self._transport.withdraw()

    def drain(self, peer: int, sizes: Sequence[int]) -> None:
        """See `Transport.drain`."""
        self._transport.drain(peer, sizes)

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """See `Transport.is_quiet`."""
        return self._transport.is_quiet(dead)

    def drop(self) -> None:
        """See `Transport.drop`."""
        self._transport.drop()

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        self._transport.abandon()


class _CarriedPending:
    """A transfer whose result comes back to host memory."""

    def __init__(
        self,
        accelerator: Accelerator,
        stream: Any,
        pending: Pending,
        receive: NDArray[Any],
        held: tuple[Any, ...],
    ) -> None:
        self._accelerator, self._stream = accelerator, stream
        self._pending, self._receive = pending, receive
        self._held = held
        self._event: Any = None
        self._done = False

    def test(self) -> bool:
        """See `Pending.test`."""
        if self._event is None and self._pending.test():
            room, _, into, _ = self._held
            self._accelerator.copy(room, into, self._stream)
            self._event = self._accelerator.record(self._stream)
        if not self._done and self._event is not None:
            self._done = self._accelerator.done(self._event)
            if self._done:
                self._receive[...] = self._held[0]
        return self._done
