"""Device memory by `Isend` and `Irecv`: MPI is given the device's own addresses.

MPI reads and writes at once, whatever the device has queued. So a transfer is only begun
when the event behind its snapshot has passed: then the chunk is whole, and whatever was
applied from the same memory before, in the same stream, is over too. The event is asked,
never waited for.
"""

from collections import deque
from typing import Any

from mpi4py import MPI

from acidmpi.arrays.accelerator import Accelerator, Event, Stream, address_of
from acidmpi.transport.protocol import Array, Pending


def span(array: Array) -> Any:
    """An array's memory as MPI takes it: an address and a length, nothing looked at."""
    return MPI.buffer.fromaddress(address_of(array), array.nbytes)


class DevicePending:
    """A transfer that may not have begun."""

    __slots__ = ("_transport", "begun", "event", "peer", "receive", "send")

    def __init__(
        self,
        transport: "DeviceTransport",
        peer: int,
        send: Any,
        receive: Any,
        event: Event,
    ) -> None:
        self._transport = transport
        self.peer, self.send, self.receive, self.event = peer, send, receive, event
        self.begun: Pending | None = None
        """The messages, once they are under way."""

    def test(self) -> bool:
        """Whether both messages are complete; begins what can begin.

        Raises:
            PeerFailed: MPI reports an error on either of them.
        """
        self._transport.advance()
        return self.begun is not None and self.begun.test()


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
        self._waiting: deque[DevicePending] = deque()

    def post(self, peer: int, send: Array, receive: Array) -> DevicePending:
        """Start both directions as soon as `send` holds what the stream will write."""
        event = self._accelerator.record(self._stream)
        pending = DevicePending(self, peer, span(send), span(receive), event)
        self._waiting.append(pending)
        self.advance()
        return pending

    def advance(self) -> None:
        """Begin what can begin, in the order of posting.

        Raises:
            PeerFailed: the peer is known to be dead.
        """
        waiting = self._waiting
        while waiting and self._accelerator.done(waiting[0].event):
            first = waiting.popleft()
            first.begun = self._messages.post(first.peer, first.send, first.receive)

    def drop(self) -> None:
        """The peer of all that is pending has died: forget it."""
        self._waiting.clear()
        self._messages.drop()

    def abandon(self) -> None:
        """Cancel every receive still posted."""
        self._waiting.clear()
        self._messages.abandon()
