"""Host memory by `Isend` and `Irecv` on a communicator of its own, whole or in pieces."""

from collections.abc import Container, Sequence

import numpy as np
from mpi4py import MPI

from acidmpi.errors import PeerDied, PeerFailed
from acidmpi.transport.pieces import Longest, cut, whole
from acidmpi.transport.protocol import Array

TAG = 1
DEATHS = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)


def failure_of(peer: int, error: MPI.Exception) -> PeerFailed:
    """What an error of a transfer with `peer` means."""
    died = error.Get_error_class() in DEATHS
    kind = PeerDied if died else PeerFailed
    return kind(peer, f"a chunk ({error.Get_error_string()})")


def _pass_over_death(peer: int, error: MPI.Exception) -> None:
    """A death will be found by others; raise `PeerFailed` for anything else."""
    failure = failure_of(peer, error)
    if not isinstance(failure, PeerDied):
        raise failure from error


def _is_over(peer: int, request: MPI.Request) -> bool:
    """Whether it is complete, or never will be."""
    try:
        return request.Test()
    except MPI.Exception as error:
        _pass_over_death(peer, error)
        return True


class HostPending:
    """The requests of one transfer."""

    __slots__ = ("_transport", "peer", "receives", "sends")

    def __init__(self, transport: "HostTransport", peer: int) -> None:
        self._transport = transport
        self.peer = peer
        self.receives: list[MPI.Request] = []
        self.sends: list[MPI.Request] = []

    def test(self) -> bool:
        """Whether all messages are complete.

        Raises:
            PeerFailed: MPI reports an error on any of them.
        """
        try:
            done = _all_over(self.receives) and _all_over(self.sends)
        except MPI.Exception as error:
            raise failure_of(self.peer, error) from error
        if done:
            self._transport.forget(self)
        return done

    def cancel(self) -> Sequence[MPI.Request]:
        """Cancel the receives; sends MPI does not let one. All are yet to be tested."""
        for receive in self.receives:
            receive.Cancel()
        return *self.receives, *self.sends


def _all_over(requests: list[MPI.Request]) -> bool:
    """Whether all are complete; those found so are taken out, the last one first."""
    while requests:
        if not requests[-1].Test():
            return False
        requests.pop()
    return True


class HostTransport:
    """Buffers in host memory, as they are.

    Owned by the communication loop; no other thread may call it.

    Args:
        comm: a communicator on which nobody else communicates.
        longest: bytes of a message to a rank, the same at both ends; None: one message
            for each buffer.
    """

    name = "host"

    def __init__(self, comm: MPI.Comm, longest: Longest = whole) -> None:
        self._comm = comm
        self._longest = longest
        self._pending: set[HostPending] = set()
        self._lost: list[HostPending | MPI.Request] = []
        self._leaving: list[tuple[int, MPI.Request]] = []
        """Transfers withdrawn and receives to be drained, by peer; with their memory."""

    def post(self, peer: int, send: Array, receive: Array) -> HostPending:
        """Start both directions; the receives first, so that data find their place.

        Raises:
            PeerFailed: the peer is known to be dead.
        """
        pending = HostPending(self, peer)
        self._pending.add(pending)
        longest = self._longest(peer)
        try:
            if longest is None or send.nbytes <= longest:
                pending.receives.append(
                    self._comm.Irecv([receive, MPI.BYTE], peer, TAG)
                )
                pending.sends.append(self._comm.Isend([send, MPI.BYTE], peer, TAG))
            else:
                self._post_pieces(pending, send, receive, longest)
        except MPI.Exception as error:
            raise failure_of(peer, error) from error
        return pending

    def _post_pieces(
        self, pending: HostPending, send: Array, receive: Array, longest: int
    ) -> None:
        comm, peer = self._comm, pending.peer
        into, out = receive.view(np.uint8), send.view(np.uint8)
        for piece in cut(receive.nbytes, longest):
            pending.receives.append(comm.Irecv([into[piece], MPI.BYTE], peer, TAG))
        for piece in cut(send.nbytes, longest):
            pending.sends.append(comm.Isend([out[piece], MPI.BYTE], peer, TAG))
        # They come in order: whoever looks finds first what comes first.
        pending.receives.reverse()
        pending.sends.reverse()

    def forget(self, pending: HostPending) -> None:
        """Called by a transfer that is complete."""
        self._pending.discard(pending)

    def withdraw(self) -> int:
        """Receive nothing that is pending; see `Transport.withdraw`."""
        count = len(self._pending)
        self._leaving += [(one.peer, r) for one in self._pending for r in one.cancel()]
        self._pending.clear()
        return count

    def drain(self, peer: int, sizes: Sequence[int]) -> None:
        """Receive what `peer` has withdrawn too late; see `Transport.drain`."""
        longest = self._longest(peer)
        for memory in (bytearray(size) for size in sizes):
            for piece in cut(len(memory), longest):
                into = memoryview(memory)[piece]
                try:
                    request = self._comm.Irecv([into, MPI.BYTE], peer, TAG)
                except MPI.Exception as error:
                    _pass_over_death(peer, error)
                else:
                    self._leaving.append((peer, request))

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """Whether nothing withdrawn is on its way; see `Transport.is_quiet`."""
        self._lost += [request for peer, request in self._leaving if peer in dead]
        self._leaving = [
            (peer, request)
            for peer, request in self._leaving
            if peer not in dead and not _is_over(peer, request)
        ]
        return not self._leaving

    def drop(self) -> None:
        """The peer of all that is pending has died: forget it.

        MPI has ended those operations, or will; their memory must outlive them, and the
        caller keeps it.
        """
        self._lost.extend(self._pending)
        self._pending.clear()

    def abandon(self) -> None:
        """Cancel every receive still posted."""
        for pending in self._pending:
            pending.cancel()
        self.drop()
