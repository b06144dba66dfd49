"""Messages that come late, in the order in which they were sent.

Both classes stand in front of the real thing and know only what they pass on. They are
owned by whoever owns that: the communication loop.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

Delays = Callable[[int], float]
"""Seconds of delay of the message with this number, counted from 1."""


class LatePending:
    """A transfer that is not seen to be complete before its time."""

    def __init__(self, pending: Any, seconds: float) -> None:
        self._pending = pending
        self._end = time.perf_counter() + seconds

    def test(self) -> bool:
        """Whether it is complete, and its delay over."""
        done: bool = time.perf_counter() >= self._end and self._pending.test()
        return done


class LateTransport:
    """A transport whose transfers are complete some time later.

    Args:
        transport: the real one.
        delays: by how much.
    """

    def __init__(self, transport: Any, delays: Delays) -> None:
        self._transport = transport
        self._delays = delays
        self._posted = 0

    def post(self, peer: int, send: Any, receive: Any) -> LatePending:
        """Start both directions."""
        self._posted += 1
        pending = self._transport.post(peer, send, receive)
        return LatePending(pending, self._delays(self._posted))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LateWire:
    """A wire whose messages leave some time later.

    A message to a peer never overtakes an earlier one to the same peer, because the
    pairing protocols rest on that.

    Args:
        wire: the real one.
        delays: by how much.
    """

    def __init__(self, wire: Any, delays: Delays) -> None:
        self._wire = wire
        self._delays = delays
        self._held: dict[int, deque[tuple[float, tuple[Any, ...]]]] = {}
        self._counted = 0
        self.sent_to = list(wire.sent_to)
        """Messages sent, by receiver, held ones included."""

    @property
    def sent(self) -> int:
        """Messages sent to all."""
        return sum(self.sent_to)

    @property
    def quiet(self) -> bool:
        """Whether MPI has taken every message sent."""
        self._release()
        return not any(self._held.values()) and self._wire.quiet

    def send(self, peer: int, *message: Any) -> None:
        """Send one message when its time has come; never blocks."""
        self._counted += 1
        self.sent_to[peer] += 1
        due = time.perf_counter() + self._delays(self._counted)
        self._held.setdefault(peer, deque()).append((due, message))
        self._release()

    def receive(self) -> Any:
        """The next message, or None; sends what is due on the way."""
        self._release()
        return self._wire.receive()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def _release(self) -> None:
        now = time.perf_counter()
        for peer, held in self._held.items():
            while held and held[0][0] <= now:
                self._wire.send(peer, *held.popleft()[1])
