"""Control messages over MPI: the handshake, and the notices that ride on it.

Owned by the communication loop; no other thread may call it. One receive is always
posted; sends are kept until MPI has taken them. Order holds per sender, as MPI gives it.
"""

import struct
from collections import deque
from typing import NamedTuple

from mpi4py import MPI

TAG = 2
FAIL = 100
"""Kind of the message with which a failing rank says so; its text follows the header."""

STOP = 101
"""Kind of the message that only carries its flags."""

NEWS = 110
"""Kind of the message with which a rank tells what it waits for: its text says so."""

_HEADER = struct.Struct("<BBH4xqd")
_unpack = _HEADER.unpack_from
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


class Message(NamedTuple):
    """One received control message."""

    source: int
    kind: int
    notice: Notice
    text: str


class Wire:
    """Sends and receives control messages.

    Args:
        comm: a communicator on which nobody else communicates.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._buffer = bytearray(_HEADER.size + LARGEST_TEXT_BYTES)
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

    def send(self, peer: int, kind: int, notice: Notice, text: str = "") -> None:
        """Send one message; never blocks."""
        tail = text.encode()[:LARGEST_TEXT_BYTES] if text else b""
        data = _HEADER.pack(kind, notice.flags, len(tail), *notice[1:]) + tail
        request = self._comm.Isend([data, MPI.BYTE], peer, TAG)
        self.sent_to[peer] += 1
        self._sending.append((request, data))
        if len(self._sending) > MOST_KEPT:
            self._reap()

    def receive(self) -> Message | None:
        """The next message, or None when none has come."""
        if not self._receive.Test(self._status):
            return None
        kind, flags, length, gradients, alpha_tilde = _unpack(self._buffer)
        notice = Notice(flags, gradients, alpha_tilde)
        text = self._text(length) if length else ""
        message = Message(self._status.source, kind, notice, text)
        self._receive.Start()
        self.received += 1
        return message

    def close(self) -> None:
        """Withdraw the posted receive; call it when no message is on its way."""
        if self._receive == MPI.REQUEST_NULL:
            return
        self._receive.Cancel()
        self._receive.Wait()
        self._receive.Free()

    def _text(self, length: int) -> str:
        tail = self._buffer[_HEADER.size : _HEADER.size + length]
        return tail.decode(errors="replace")

    def _reap(self) -> None:
        while self._sending and self._sending[0][0].Test():
            self._sending.popleft()
