"""What a transport offers to the exchange of two ranks.

Guarantees of every implementation:
- messages to one peer arrive in the order in which they were posted;
- neither call blocks;
- the send buffer is only read and the receive buffer only written until `test` has said
  True; afterwards both belong to the caller again.
"""

from collections.abc import Container, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class Pending(Protocol):
    """One two-way transfer on its way."""

    def test(self) -> bool:
        """Whether both directions are complete.

        Raises:
            PeerFailed: they never will be.
        """
        ...


class Transport(Protocol):
    """Moves buffers of equal size between this rank and a peer."""

    name: str
    """What the summary calls it."""

    def post(self, peer: int, send: Array, receive: Array) -> Pending:
        """Start to send `send` to `peer` and to receive as many bytes from it."""
        ...

    def withdraw(self) -> int:
        """The peer has sent nothing and will not: wait for nothing that is pending.

        What has been sent goes on; its memory is to be left alone until `is_quiet`.

        Returns:
            How many transfers the peer will find sent to it, those posted first; it must
            `drain` them.
        """
        ...

    def drain(self, peer: int, sizes: Sequence[int]) -> None:
        """Receive transfers of so many bytes from a peer that has withdrawn, for nothing.

        To be called before anything else is posted to this peer.
        """
        ...

    def is_quiet(self, dead: Container[int] = ()) -> bool:
        """Whether all that was withdrawn or is to be drained has gone or come.

        Args:
            dead: ranks with which nothing is waited for.
        """
        ...

    def drop(self) -> None:
        """The peer of everything pending has died; go on with others.

        The memory of what was pending must be left alone for ever.
        """
        ...

    def abandon(self) -> None:
        """Give up everything pending; the transport cannot be used any more."""
        ...
