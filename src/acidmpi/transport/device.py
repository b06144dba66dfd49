"""Device memory by `Isend` and `Irecv`: MPI is given the device's own addresses.

MPI reads and writes at once, whatever the device has queued. So a transfer is only begun
when the event behind its snapshot has passed: then the chunk is whole, and whatever was
applied from the same memory before, in the same stream, is over too. The event is asked,
never waited for.
"""

from functools import partial
from typing import Any

from mpi4py import MPI

from acidmpi.arrays.accelerator import address_of
from acidmpi.transport.deferred import Deferred, DeferredTransport
from acidmpi.transport.protocol import Array


def span(array: Array) -> Any:
    """An array's memory as MPI takes it: an address and a length, nothing looked at."""
    return MPI.buffer.fromaddress(address_of(array), array.nbytes)


class DeviceTransport(DeferredTransport):
    """Buffers in device memory, as they are, one message a direction."""

    name = "device"

    def post(self, peer: int, send: Array, receive: Array) -> Deferred:
        """Start both directions as soon as `send` holds what the stream will write."""
        event = self._accelerator.record(self._stream)
        return self._queue.post(
            event, partial(self._messages.post, peer, span(send), span(receive))
        )
