"""Device memory by `Isend` and `Irecv`: MPI is given the device's own addresses.

MPI reads and writes at once, whatever the device has queued. So a transfer is only begun
when the event behind its snapshot has passed: then the chunk is whole, and whatever was
applied from the same memory before, in the same stream, is over too. The event is asked,
never waited for.
"""

from collections.abc import Container, Sequence
from functools import partial
from typing import Any

from mpi4py import MPI

from acidmpi.arrays.accelerator import Accelerator, Stream, address_of
from acidmpi.transport.deferred import Deferred, EventQueue
from acidmpi.transport.protocol import Array


def span(array: Array) -> Any:
    """An array's memory as MPI takes it: an address and a length, nothing looked at."""
    return MPI.buffer.fromaddress(address_of(array), array.nbytes)


class DeviceTransport:
    """Buffers in device memory, as they are, one message a direction.

    Owned by the communication loop; no other thread may call it.

    Args:
        messages: moves spans of memory, such as a `HostTransport`.
        accelerator: the device.
        stream: where snapshots are taken and messages are applied.
    """

    name = "device"

    def __init__(self, messages: Any, accelerator: Accelerator, stream: Stream) -> None:
        self._messages = messages
        self._accelerator = accelerator
        self._stream = stream
        self._queue = EventQueue(accelerator)

    def post(self, peer: int, send: Array, receive: Array) -> Deferred:
        """Start both directions as soon as `send` holds what the stream will write."""
        event = self._accelerator.record(self._stream)
        return self._queue.post(
            event, partial(self._messages.post, peer, span(send), span(receive))
        )

    def withdraw(self) -> int:
        """What has begun goes on, the rest never begins; see `Transport.withdraw`."""
        self._queue.clear()
        count: int = self._messages.withdraw()
        return count

    def drain(self, peer: int, sizes: Sequence[int]) -> None:
        """Into host memory, whatever it was sent from; see `Transport.drain`."""
        self._messages.drain(peer, sizes)

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """Whether nothing withdrawn is on its way; see `Transport.is_quiet`."""
        quiet: bool = self._messages.is_quiet(dead)
        return quiet

    def drop(self) -> None:
        """The peer of all that is pending has died: forget it."""
        self._queue.clear()
        self._messages.drop()

    def abandon(self) -> None:
        """Cancel every receive still posted."""
        self._queue.clear()
        self._messages.abandon()
