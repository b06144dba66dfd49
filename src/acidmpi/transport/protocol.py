"""What a transport offers to the exchange of two ranks.

Guarantees of every implementation:
- messages to one peer arrive in the order in which they were posted;
- neither call blocks;
- the send buffer is only read and the receive buffer only written until `test` has said
  True; afterwards both belong to the caller again.
"""

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

    def drop(self) -> None:
        """The peer of everything pending has died; go on with others.

        The memory of what was pending must be left alone for ever.
        """
        ...

    def abandon(self) -> None:
        """Give up everything pending; the transport cannot be used any more."""
        ...
