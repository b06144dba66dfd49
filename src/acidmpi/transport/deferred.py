"""Messages that begin when an event of the device has passed, in the order of posting.

Both ranks number a pair's messages by the order in which they are posted, so a later one
never overtakes one whose event is still to come. Events are asked, never waited for.
"""

from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any

from acidmpi.arrays.accelerator import Accelerator, Event, Stream
from acidmpi.transport.protocol import Pending


class Deferred:
    """A transfer that may not have begun."""

    __slots__ = ("_begin", "_begun", "_queue", "event")

    def __init__(
        self, queue: "EventQueue", event: Event, begin: Callable[[], Pending]
    ) -> None:
        self._queue, self.event, self._begin = queue, event, begin
        self._begun: Pending | None = None

    @property
    def begun(self) -> Pending | None:
        """What `begin` has posted, if it has."""
        return self._begun

    def begin(self) -> None:
        """Post the messages; called once, by the queue."""
        self._begun = self._begin()

    def test(self) -> bool:
        """Whether the messages are complete; begins what can begin.

        Raises:
            PeerFailed: MPI reports an error on one of them.
        """
        self._queue.advance()
        return self._begun is not None and self._begun.test()


class EventQueue:
    """What waits for its event; owned by the communication loop.

    Args:
        accelerator: the device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._waiting: deque[Deferred] = deque()

    def post(self, event: Event, begin: Callable[[], Pending]) -> Deferred:
        """Call `begin`, which posts messages, once `event` has passed: now, if it has."""
        deferred = Deferred(self, event, begin)
        self._waiting.append(deferred)
        self.advance()
        return deferred

    def advance(self) -> None:
        """Begin what can begin.

        Raises:
            PeerFailed: the peer is known to be dead.
        """
        waiting = self._waiting
        while waiting and self._accelerator.done(waiting[0].event):
            waiting.popleft().begin()

    def clear(self) -> None:
        """Forget what has not begun."""
        self._waiting.clear()


class DeferredTransport:
    """What transports of device memory share: all but how a transfer is posted.

    Owned by the communication loop; no other thread may call it.

    Args:
        messages: moves what the messages are made of, such as a `HostTransport`.
        accelerator: the device.
        stream: where snapshots are taken and messages are applied.
    """

    def __init__(self, messages: Any, accelerator: Accelerator, stream: Stream) -> None:
        self._messages = messages
        self._accelerator = accelerator
        self._stream = stream
        self._queue = EventQueue(accelerator)

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
