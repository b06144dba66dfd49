"""Control messages over MPI: the handshake, and the notices that ride on it.

Owned by the communication loop; no other thread may call it. One receive is always
posted; sends are kept until MPI has taken them. Order holds per sender, as MPI gives it.
"""

import struct
from collections import deque
from typing import NamedTuple

from mpi4py import MPI

from acidmpi.pairing.messages import Kind

TAG = 2
FAIL = 100
"""Kind of the message with which a failing rank says so; its text follows the header."""

STOP = 101
"""Kind of the message that only carries its flags."""

END = 102
"""Kind of the last message of a rank that survives deaths: none follows it."""

BEAT = 103
"""Kind of the message with this rank's part of a heartbeat of the survivors."""

TOTAL = 104
"""Kind of the message with the sum of such a heartbeat."""

CALL = 105
"""Kind of the message with which one survivor asks for what it will average."""

LOADED = (BEAT, TOTAL, CALL, int(Kind.DROPPED))
"""Kinds that carry numbers, not a text."""

UNHURRIED = (BEAT, TOTAL)
"""Kinds that nobody waits for: they come all the time, and no loop looks more often
because one has come."""

NEWS = 110
"""Kind of the message with which a rank tells what it waits for: its text says so."""

_HEADER = struct.Struct("<BBH4xqdq")
_pack, _unpack = _HEADER.pack, _HEADER.unpack_from
_new = tuple.__new__
"""Makes a named tuple in half the time of its own constructor."""

LARGEST_TEXT_BYTES = 2000
MOST_KEPT = 8
"""Sends that may be kept before MPI is asked which of them it has taken."""


class Notice(NamedTuple):
    """What rides on every control message."""

    flags: int = 0
    """Bits that receivers keep and pass on: see `worker.ledger`."""

    gradients: int = 0
    """Gradient events of the sender so far."""

    alpha_tilde: float = 0.5
    """The sender's α̃ at this moment; an exchange uses the smaller of the two ends'."""

    taken: int = 0
    """Parts of checkpoints that the sender will have taken before an exchange: see
    `worker.keeping`."""


class Message(NamedTuple):
    """One received control message."""

    source: int
    kind: int
    notice: Notice
    text: str
    load: bytes = b""
    """What follows the header, as it came."""


class Wire:
    """Sends and receives control messages.

    Args:
        comm: a communicator on which nobody else communicates.
        largest_bytes: what may follow the header of a message.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        largest_bytes: int = LARGEST_TEXT_BYTES,
    ) -> None:
        self._comm = comm
        self._buffer = bytearray(_HEADER.size + largest_bytes)
        self._status = MPI.Status()
        self._receive = comm.Recv_init([self._buffer, MPI.BYTE], MPI.ANY_SOURCE, TAG)
        self._receive.Start()
        self._sending: deque[tuple[MPI.Request, bytes]] = deque()
        self.sent_to = [0] * comm.size
        """Messages sent, by receiver."""
        self.received = 0
        """Messages received from all."""

    @property
    def sent(self) -> int:
        """Messages sent to all."""
        return sum(self.sent_to)

    @property
    def quiet(self) -> bool:
        """Whether MPI has taken every message sent."""
        self._reap()
        return not self._sending

    def send(
        self, peer: int, kind: int, notice: Notice, text: str = "", load: bytes = b""
    ) -> None:
        """Send one message, with a text or a load; never blocks."""
        tail = text.encode()[:LARGEST_TEXT_BYTES] if text else load
        flags, gradients, alpha_tilde, taken = notice
        data = _pack(kind, flags, len(tail), gradients, alpha_tilde, taken) + tail
        request = self._comm.Isend([data, MPI.BYTE], peer, TAG)
        self.sent_to[peer] += 1
        self._sending.append((request, data))
        if len(self._sending) > MOST_KEPT:
            self._reap()

    def receive(self) -> Message | None:
        """The next message, or None when none has come."""
        if not self._arrived():
            return None
        kind, flags, length, gradients, alpha_tilde, taken = _unpack(self._buffer)
        notice = _new(Notice, (flags, gradients, alpha_tilde, taken))
        load, text = b"", ""
        if length:
            load = self._load(length)
            text = load.decode(errors="replace") if kind not in LOADED else ""
        message = _new(Message, (self._status.source, kind, notice, text, load))
        self._expect()
        self.received += 1
        return message

    def close(self) -> None:
        """Withdraw the posted receive; call it when no message is on its way."""
        if self._receive == MPI.REQUEST_NULL:
            return
        self._receive.Cancel()
        self._receive.Wait()
        self._receive.Free()

    def _expect(self) -> None:
        """Get ready for the next message."""
        self._receive.Start()

    def _arrived(self) -> bool:
        """Whether a message has come."""
        return self._receive.Test(self._status)

    def _load(self, length: int) -> bytes:
        return bytes(self._buffer[_HEADER.size : _HEADER.size + length])

    def _reap(self) -> None:
        while self._sending and self._taken(self._sending[0][0]):
            self._sending.popleft()

    def _taken(self, request: MPI.Request) -> bool:
        """Whether MPI needs this message's memory no more."""
        return request.Test()
