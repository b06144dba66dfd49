"""Where an averager's gradients live, and in which order they are touched there.

In host memory a gradient is there when it is handed over, and its mean when the step is
over. On a device both are queued work: the loop has a stream of its own, which waits, on
the device, for what the caller had queued when it handed a gradient over; and after a step
the caller's stream waits for the loop's. No host waits for a device, but for messages,
which begin when what they carry has come (`parallel.staging`). These are no turns, as
`arrays.site` has them: a backward pass never waits for what the loop does meanwhile.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from acidmpi.arrays.accelerator import Accelerator, Event, here
from acidmpi.parallel.messages import Channel, Posting
from acidmpi.parallel.staging import StagedChannel


class Lane(Protocol):
    """Host memory, or a device."""

    def mark(self) -> Event | None:
        """A gradient is handed over: what it must be waited for, if anything.

        Called by the thread that made the gradient; all else by the loop's.
        """
        ...

    def working(self, marks: Iterable[Event | None]) -> AbstractContextManager[None]:
        """The block works on gradients with these marks, and on what came of others."""
        ...

    def channel(self, channel: Channel) -> Posting:
        """`channel` for messages of what lies here."""
        ...

    def settle(self) -> None:
        """What the caller does from now on sees the means; called by its thread."""
        ...

    def calling(self) -> AbstractContextManager[None]:
        """The block copies what the caller has made; called by its thread."""
        ...


class HostLane:
    """Host memory: there is nothing to order."""

    def mark(self) -> None:
        """See `Lane`."""

    def working(self, marks: Iterable[Event | None]) -> AbstractContextManager[None]:
        """See `Lane`."""
        return nullcontext()

    def channel(self, channel: Channel) -> Posting:
        """See `Lane`."""
        return channel

    def settle(self) -> None:
        """See `Lane`."""

    def calling(self) -> AbstractContextManager[None]:
        """See `Lane`."""
        return nullcontext()


class DeviceLane:
    """A device: an event for each gradient, and one for the means.

    Args:
        accelerator: the device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._stream = accelerator.stream()

    def mark(self) -> Event:
        """See `Lane`."""
        return self._accelerator.record(self._accelerator.caller())

    @contextmanager
    def working(self, marks: Iterable[Event | None]) -> Iterator[None]:
        """See `Lane`."""
        for mark in marks:
            self._accelerator.wait(self._stream, mark)
        with self._accelerator.on(self._stream):
            yield

    def channel(self, channel: Channel) -> Posting:
        """See `Lane`."""
        return StagedChannel(channel, self._accelerator, self._stream)

    def settle(self) -> None:
        """See `Lane`."""
        device = self._accelerator
        device.wait(device.caller(), device.record(self._stream))

    def calling(self) -> AbstractContextManager[None]:
        """See `Lane`."""
        return here(self._accelerator)


def lane_of(accelerator: Accelerator | None) -> Lane:
    """Where gradients on this device, or in host memory, are worked on."""
    return HostLane() if accelerator is None else DeviceLane(accelerator)
