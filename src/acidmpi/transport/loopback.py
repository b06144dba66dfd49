"""A transport between ranks of one process, for tests and rehearsals without MPI."""

from collections import defaultdict, deque
from collections.abc import Container, Sequence

import numpy as np

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
        self.peer = peer
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
        self._draining: list[LoopbackPending] = []

    def post(self, peer: int, send: Array, receive: Array) -> LoopbackPending:
        """Copy `send` into the channel to `peer`."""
        self._hub.sent[self._rank, peer].append(send.tobytes())
        return LoopbackPending(self._hub, self._rank, peer, receive)

    def withdraw(self) -> int:
        """Wait for nothing any more; see `Transport.withdraw`."""
        mine = [c for c in self._hub.waiting if c[1] == self._rank]
        count = sum(len(self._hub.waiting[channel]) for channel in mine)
        for channel in mine:
            self._hub.waiting[channel].clear()
        return count

    def drain(self, peer: int, sizes: Sequence[int]) -> None:
        """Receive into nowhere; see `Transport.drain`."""
        for size in sizes:
            nowhere = np.empty(size, np.uint8)
            self._draining.append(LoopbackPending(self._hub, self._rank, peer, nowhere))

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """Whether all that was to be drained has come; see `Transport.is_quiet`."""
        self._draining = [
            one for one in self._draining if one.peer not in dead and not one.test()
        ]
        return not self._draining

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
