"""The words of the pairing protocols: what one rank may say to a neighbour."""

from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """A control message."""

    REQUEST = 0
    """Exchange with me. In `schedule`: I have reached our common event."""

    ACCEPT = 1
    """Yes: both of us are matched."""

    BUSY = 2
    """Not now: the one who asked is free again."""

    FREE = 3
    """I wait for an exchange (`fifo` only); needs no answer."""

    OPEN = 4
    """I start no more, ask me whenever you are due (`fifo` only); needs no answer."""

    CANCEL = 5
    """You have begun too late, I have gone on: take it back (`handshake` only)."""

    DROPPED = 6
    """I have; so many chunks will come to you all the same (`handshake` only)."""


class Send(NamedTuple):
    """A control message on its way out."""

    peer: int
    kind: Kind


Sends = tuple[Send, ...]
"""Messages to be sent now, in this order."""


def unexpected(source: int, kind: int, asking: int | None) -> RuntimeError:
    """The error for a message which the protocol excludes: a fault of a program."""
    name = {int(known): known.name for known in Kind}.get(kind, f"kind {kind}")
    asked = "nobody" if asking is None else f"rank {asking}"
    return RuntimeError(
        f"rank {source} sent {name} while this rank asked {asked}; "
        "all ranks must run the same version and the same `pairing`"
    )
