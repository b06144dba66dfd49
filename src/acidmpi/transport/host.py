"""Host memory by `Isend` and `Irecv` on a communicator of its own."""

from collections.abc import Container, Sequence

from mpi4py import MPI

from acidmpi.errors import PeerDied, PeerFailed
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
    """Two requests of one transfer."""

    __slots__ = ("_receive", "_send", "_transport", "peer")

    def __init__(
        self,
        transport: "HostTransport",
        peer: int,
        receive: MPI.Request,
        send: MPI.Request,
    ) -> None:
        self._transport = transport
        self.peer = peer
        self._receive = receive
        self._send = send

    def test(self) -> bool:
        """Whether both messages are complete.

        Raises:
            PeerFailed: MPI reports an error on either of them.
        """
        try:
            done = self._receive.Test() and self._send.Test()
        except MPI.Exception as error:
            raise failure_of(self.peer, error) from error
        if done:
            self._transport.forget(self)
        return done

    def cancel(self) -> Sequence[MPI.Request]:
        """Cancel the receive; the send MPI does not let one. Both are yet to be tested."""
        if self._receive:
            self._receive.Cancel()
        return self._receive, self._send


class HostTransport:
    """Buffers in host memory, as they are, one message a direction.

    Owned by the communication loop; no other thread may call it.

    Args:
        comm: a communicator on which nobody else communicates.
    """

    name = "host"

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._pending: set[HostPending] = set()
        self._lost: list[HostPending | MPI.Request] = []
        self._leaving: list[tuple[int, MPI.Request]] = []
        """Transfers withdrawn and receives to be drained, by peer; with their memory."""

    def post(self, peer: int, send: Array, receive: Array) -> HostPending:
        """Start both directions; the receive first, so that data find their place.

        Raises:
            PeerFailed: the peer is known to be dead.
        """
        try:
            incoming = self._comm.Irecv([receive, MPI.BYTE], peer, TAG)
            outgoing = self._comm.Isend([send, MPI.BYTE], peer, TAG)
        except MPI.Exception as error:
            raise failure_of(peer, error) from error
        pending = HostPending(self, peer, incoming, outgoing)
        self._pending.add(pending)
        return pending

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
        for size in sizes:
            try:
                request = self._comm.Irecv([bytearray(size), MPI.BYTE], peer, TAG)
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
