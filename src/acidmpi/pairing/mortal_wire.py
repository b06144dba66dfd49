"""Control messages over MPI among ranks of which some may die.

What Open MPI 5.0.11 does at a death, and what follows for a wire:
- a posted receive from anybody says so again and again, and at times ends without a word
  while it holds a message whose source it does not tell;
- a message of a dead rank that nobody has received yet is found by every probe, and no
  receive from that rank takes it: it would hide all messages behind it for ever. Only a
  matched probe takes it away.

So as long as all live, a receive is posted, as in `Wire`; from the first death on, arrivals
are looked for by matched probes. Every message names its sender, so that one that was on
its way into the posted receive is not lost.
"""

import struct
from collections.abc import Callable, Collection

from mpi4py import MPI

from acidmpi.pairing.wire import LARGEST_TEXT_BYTES, MOST_KEPT, TAG, Notice, Wire

_SIGNED = struct.Struct("<BBHiqdq")
"""The header of a message with its sender, counted from 1, where `Wire` has a gap."""

_pack = _SIGNED.pack

_SENDER = struct.Struct("<4xi")
_SENDER_BYTES = slice(4, 8)
_NOBODY = bytes(4)


class MortalWire(Wire):
    """A wire among ranks of which some may die.

    Messages to the dead are dropped; those of the dead that have come are heard.

    Args:
        comm: a communicator on which nobody else communicates.
        largest_bytes: what may follow the header of a message.
        is_death: whether an error of MPI tells of a death.
        dead: ranks that are known to be dead; may grow.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        largest_bytes: int,
        is_death: Callable[[MPI.Exception], bool],
        dead: Collection[int],
    ) -> None:
        super().__init__(comm, max(largest_bytes, LARGEST_TEXT_BYTES))
        self._is_death = is_death
        self._dead = dead
        self._sender = comm.rank + 1
        self._posted: bytearray | None = None
        """From the first death on: where a last message may be that was on its way."""
        self._held: MPI.Message | None = None
        """A message that must not be heard before that one."""

    def send(
        self, peer: int, kind: int, notice: Notice, text: str = "", load: bytes = b""
    ) -> None:
        """Send one message to a rank that lives; never blocks."""
        if peer in self._dead:
            return
        tail = text.encode()[:LARGEST_TEXT_BYTES] if text else load
        flags, gradients, alpha_tilde, taken = notice
        sender, length = self._sender, len(tail)
        data = _pack(kind, flags, length, sender, gradients, alpha_tilde, taken) + tail
        try:
            request = self._comm.Isend([data, MPI.BYTE], peer, TAG)
        except MPI.Exception as error:
            self._forgive(error)
            return
        self.sent_to[peer] += 1
        self._sending.append((request, data))
        if len(self._sending) > MOST_KEPT:
            self._reap()

    def close(self) -> None:
        """Withdraw the posted receive; it may stay open where somebody has died."""
        if self._posted is None:
            self._withdraw()

    def _expect(self) -> None:
        if self._posted is None:
            self._buffer[_SENDER_BYTES] = _NOBODY
            self._receive.Start()

    def _arrived(self) -> bool:
        if self._posted is None and not self._dead:
            try:
                if not self._receive.Test(self._status):
                    return False
                if self._status.source >= 0:
                    return True
            except MPI.Exception as error:
                self._forgive(error)
        return self._looked_for()

    def _looked_for(self) -> bool:
        """Whether a message has come, once somebody has died."""
        if self._posted is None:
            self._withdraw()
        if self._salvaged():
            return True
        held, self._held = self._held, None
        found = held or self._probe() or self._probe()
        if found is not None and self._salvaged():
            self._held = found
            return True
        return found is not None and self._taken_from(found)

    def _withdraw(self) -> None:
        """Post no receive any more."""
        self._posted, self._buffer = self._buffer, bytearray(len(self._buffer))
        try:
            self._receive.Cancel()
        except MPI.Exception as error:
            self._forgive(error)

    def _salvaged(self) -> bool:
        """Whether the receive that was posted holds a message, which is taken then."""
        assert self._posted is not None
        (sender,) = _SENDER.unpack_from(self._posted)
        if not sender:
            return False
        self._buffer[:] = self._posted
        self._posted[_SENDER_BYTES] = _NOBODY
        self._status.source = sender - 1
        return True

    def _probe(self) -> MPI.Message | None:
        """The next message; one call of this brings it, the next call finds it."""
        try:
            return self._comm.Improbe(MPI.ANY_SOURCE, TAG)
        except MPI.Exception as error:
            self._forgive(error)
            return None

    def _taken_from(self, message: MPI.Message) -> bool:
        try:
            message.Recv([self._buffer, MPI.BYTE], self._status)
        except MPI.Exception as error:
            self._forgive(error)  # its sender died while it was on its way
            return False
        return True

    def _taken(self, request: MPI.Request) -> bool:
        try:
            return request.Test()
        except MPI.Exception as error:
            self._forgive(error)
            return True

    def _forgive(self, error: MPI.Exception) -> None:
        """Take note of a death; raise any other error."""
        if not self._is_death(error):
            raise error
        self._comm.Ack_failed(self._comm.size)
