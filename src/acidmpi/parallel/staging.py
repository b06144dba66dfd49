"""Messages of what lies in a device's memory, by way of page-locked host memory.

device → host → message → host → device: the copies are queued on the loop's stream, a
message begins when its copy has passed, asked and never waited for, and its reply is in
the device's memory for all that the stream is given later.
"""

from collections import deque
from functools import partial
from typing import Any

from acidmpi.arrays.accelerator import Accelerator, Event, Stream
from acidmpi.compression.protocol import AllToAll, Array, Gather, Message, Swap
from acidmpi.parallel.messages import Channel, check
from acidmpi.transport.deferred import Deferred, EventQueue


class StagedChannel:
    """Posts messages of a device on a channel of host memory, in the order of posting.

    Owned by the thread that owns the channel.

    Args:
        channel: carries them.
        accelerator: the device.
        stream: where arrays are made, and replies used.
    """

    def __init__(
        self, channel: Channel, accelerator: Accelerator, stream: Stream
    ) -> None:
        self._channel = channel
        self._accelerator = accelerator
        self._stream = stream
        self._queue = EventQueue(accelerator)
        self._flying: deque[tuple[Event, Array]] = deque()
        """Host memory that the device still reads."""

    @property
    def size(self) -> int:
        """See `Channel`."""
        return self._channel.size

    @property
    def moved(self) -> int:
        """See `Channel`."""
        return self._channel.moved

    def post(self, message: Message) -> "StagedMessage":
        """Start a message as soon as its array holds what the stream will write.

        Raises:
            ConfigError: see `Channel`.
        """
        check(message, self.size)
        host = message._replace(array=self._fetched(message.array))
        if isinstance(host, Swap):
            host = host._replace(received=self._room(host.received))
        begin: Any = partial(self._channel.post, host)
        event = self._accelerator.record(self._stream)
        return StagedMessage(self, message, self._queue.post(event, begin))

    def landed(self, message: Message, reply: Array) -> Array:
        """The reply in the device's memory, queued; `reply` is in the host's."""
        place = self._place_of(message, reply)
        room = reply
        if isinstance(
            message, Gather | AllToAll
        ):  # made by MPI's call: not page-locked
            room = self._room(reply)
            room[...] = reply
        device, stream = self._accelerator, self._stream
        device.copy(place.reshape(-1), room.reshape(-1), stream)
        self._flying.append((device.record(stream), room))
        while self._flying and device.done(self._flying[0][0]):
            self._flying.popleft()
        return place

    def _place_of(self, message: Message, reply: Array) -> Array:
        match message:
            case Swap():
                return message.received
            case Gather() | AllToAll():
                with self._accelerator.on(self._stream):
                    made = self._accelerator.empty(reply.size, reply.dtype)
                return made.reshape(reply.shape)
            case _:
                return message.array

    def _fetched(self, array: Array) -> Array:
        room = self._room(array)
        self._accelerator.copy(room.reshape(-1), array.reshape(-1), self._stream)
        return room

    def _room(self, like: Array) -> Array:
        """Page-locked memory for an array of this shape and type."""
        return (
            self._accelerator.pinned(like.nbytes).view(like.dtype).reshape(like.shape)
        )


class StagedMessage:
    """A message whose copies are part of it.

    Args:
        channel: brings the reply to the device.
        message: as the compressor made it.
        carried: the same in host memory, once it has begun.
    """

    reply: Array

    def __init__(
        self, channel: StagedChannel, message: Message, carried: Deferred
    ) -> None:
        self._channel, self._message, self._carried = channel, message, carried
        self._done = False

    def test(self) -> bool:
        """Whether the reply is on its way to the device; begins what can begin."""
        if not self._done and self._carried.test():
            begun: Any = self._carried.begun
            self.reply = self._channel.landed(self._message, begun.reply)
            self._done = True
        return self._done
