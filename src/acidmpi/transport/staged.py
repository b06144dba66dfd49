"""Device memory by way of page-locked host memory: for an MPI that knows no devices.

A chunk goes device → host → message → host → device. Each way has a stream of its own, so
that chunks in both directions and the message between them move at the same time:

- *out* waits, on the device, for the snapshot, and copies it to the host;
- the messages begin when that copy is over, asked and never waited for;
- *in* copies what came to the device, and the stream that applies it waits, on the
  device, for that copy.

Nothing else needs an event. A slot's host memory is written again by messages that begin
when the next copy out of the device is over; that copy waits for the stream, and the
stream waits for the last copy into the device.
"""

from collections.abc import Container
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from acidmpi.arrays.accelerator import Accelerator, Stream
from acidmpi.transport.deferred import Deferred, DeferredTransport
from acidmpi.transport.protocol import Array

Bytes = npt.NDArray[np.uint8]


class _Slot:
    """Page-locked memory of one transfer, both directions."""

    def __init__(self, accelerator: Accelerator, size_bytes: int) -> None:
        self.out = accelerator.pinned(size_bytes)
        self.into = accelerator.pinned(size_bytes)


class StagedPending:
    """A transfer whose copies are part of it."""

    __slots__ = ("_done", "_messages", "_transport", "receive", "slot")

    def __init__(
        self,
        transport: "StagedTransport",
        messages: Deferred,
        receive: Array,
        slot: _Slot,
    ) -> None:
        self._transport, self._messages = transport, messages
        self.receive, self.slot = receive, slot
        self._done = False

    def test(self) -> bool:
        """Whether both messages are complete; begins what can begin.

        What came is then in `receive` for all that the stream is given from now on.

        Raises:
            PeerFailed: MPI reports an error on either of them.
        """
        if not self._done and self._messages.test():
            self._transport.land(self)
            self._done = True
        return self._done


class StagedTransport(DeferredTransport):
    """Buffers in device memory, by copies in page-locked host memory."""

    name = "staged"

    def __init__(self, messages: Any, accelerator: Accelerator, stream: Stream) -> None:
        super().__init__(messages, accelerator, stream)
        self._out, self._in = accelerator.stream(), accelerator.stream()
        self._free: list[_Slot] = []
        self._lost: list[_Slot] = []
        """Of transfers with the dead: MPI may still use their memory."""
        self._going: set[_Slot] = set()
        self._parked: set[_Slot] = set()
        """Of transfers that were withdrawn: MPI may still read their memory."""

    def post(self, peer: int, send: Array, receive: Array) -> StagedPending:
        """Start both directions as soon as `send` holds what the stream will write."""
        device, slot = self._accelerator, self._slot(send.nbytes)
        self._going.add(slot)
        device.wait(self._out, device.record(self._stream))
        device.copy(slot.out[: send.nbytes].view(send.dtype), send, self._out)
        mine, theirs = (half[: send.nbytes] for half in (slot.out, slot.into))
        begin = partial(self._messages.post, peer, mine, theirs)
        messages = self._queue.post(device.record(self._out), begin)
        return StagedPending(self, messages, receive, slot)

    def land(self, pending: StagedPending) -> None:
        """The messages of a transfer have come: copy to the device, free the slot."""
        device, receive, slot = self._accelerator, pending.receive, pending.slot
        device.copy(receive, slot.into[: receive.nbytes].view(receive.dtype), self._in)
        device.wait(self._stream, device.record(self._in))
        self._going.discard(slot)
        self._free.append(slot)

    def withdraw(self) -> int:
        """See `Transport.withdraw`; MPI may still read what has been sent."""
        self._parked |= self._going
        self._going.clear()
        return super().withdraw()

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """See `Transport.is_quiet`; then the memory can be used again."""
        quiet = super().is_quiet(dead)
        if quiet and not dead:
            self._free += self._parked
            self._parked.clear()
        return quiet

    def drop(self) -> None:
        """The peer of all that is pending has died: forget it, but keep its memory."""
        self._lost.extend(self._going)
        self._going.clear()
        super().drop()

    def _slot(self, size_bytes: int) -> _Slot:
        """The slot that has been free for longest, of those that are large enough."""
        for index, slot in enumerate(self._free):
            if slot.out.size >= size_bytes:
                return self._free.pop(index)
        return _Slot(self._accelerator, size_bytes)
