"""A transport between ranks of one process, for tests and rehearsals without MPI."""

from collections import defaultdict, deque

from acidmpi.errors import PeerDied
from acidmpi.transport.protocol import Array


class LoopbackHub:
    """The channels between `size` ranks that live in one process and one thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: dict[tuple[int, int], deque[bytes]] = defaultdict(deque)
        """Messages on their way, by sender and receiver."""
        self.waiting: dict[tuple[int, int], deque[LoopbackPending]] = defaultdict(deque)
        """Receives not yet served, by sender and receiver."""
        self.dead: set[int] = set()

    def transport(self, rank: int) -> "LoopbackTransport":
        """The end that belongs to `rank`."""
        return LoopbackTransport(self, rank)

    def kill(self, rank: int) -> None:
        """From now on every transfer with `rank` fails."""
        self.dead.add(rank)

    def deliver(self, channel: tuple[int, int]) -> None:
        """Serve receives in the order in which they were posted."""
        sent, waiting = self.sent[channel], self.waiting[channel]
        while sent and waiting:
            waiting.popleft().take(sent.popleft())


class LoopbackPending:
    """A transfer that is complete once the peer has posted its own."""

    def __init__(self, hub: LoopbackHub, rank: int, peer: int, receive: Array) -> None:
        self._hub = hub
        self._channel = (peer, rank)
        self._receive = receive
        self._done = False
        hub.waiting[self._channel].append(self)

    def take(self, data: bytes) -> None:
        """The peer's bytes have come."""
        self._receive.view("u1")[:] = memoryview(data)
        self._done = True

    def test(self) -> bool:
        """Whether the peer's bytes have come; looks for them."""
        self._hub.deliver(self._channel)
        if not self._done and self._channel[0] in self._hub.dead:
            raise PeerDied(self._channel[0], "a chunk")
        return self._done


class LoopbackTransport:
    """One rank's end of a `LoopbackHub`."""

    name = "loopback"

    def __init__(self, hub: LoopbackHub, rank: int) -> None:
        self._hub = hub
        self._rank = rank

    def post(self, peer: int, send: Array, receive: Array) -> LoopbackPending:
        """Copy `send` into the channel to `peer`."""
        self._hub.sent[self._rank, peer].append(send.tobytes())
        return LoopbackPending(self._hub, self._rank, peer, receive)

    def drop(self) -> None:
        """Forget what this rank waits for from the dead."""
        for source in self._hub.dead:
            self._hub.waiting[source, self._rank].clear()

    def abandon(self) -> None:
        """Forget what this rank has sent and waits for."""
        for (source, target), sent in self._hub.sent.items():
            if source == self._rank:
                sent.clear()
            if target == self._rank:
                self._hub.waiting[source, target].clear()
